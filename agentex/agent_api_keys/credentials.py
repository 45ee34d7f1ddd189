"""Keys and signing secrets: made, checked, hashed, sealed. Nothing here is logged or quoted in a message."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from agentex.agent_api_keys.models import SIGNING_TYPES, ApiKeyType
from agentex.errors import BadRequest, InvalidInput, SecretUnreadable
from agentex.settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

# By which a scanner of leaked secrets, and a person, recognise what it is.
KEY_PREFIX = "agx_"
KEY_BYTES = 32
SHOWN_CHARACTERS = 10
# A key is kept as a plain hash, so a short one could be guessed from it.
_KEY = re.compile(r"[\x21-\x7e]{16,512}", re.ASCII)
_SECRET = re.compile(r"[\x20-\x7e]{8,512}", re.ASCII)


@dataclass(frozen=True, repr=False)
class Credential:
    """A key or signing secret in the clear, and the columns that are kept of it."""

    text: str
    key_prefix: str | None = None
    key_hash: str | None = None
    sealed_secret: str | None = None


def credential(settings: Settings, kind: ApiKeyType, given: str | None, field: str) -> Credential:
    """What somebody gave, else a new one.

    Raises InvalidInput, naming the field, for what is too short or not printable; BadRequest for a Slack app
    without its secret, and where nothing can be sealed.
    """
    if kind in SIGNING_TYPES:
        if given is None and kind is ApiKeyType.SLACK:
            raise BadRequest(f"{field} is missing: Slack signs with the app's own Signing Secret; give that")
        _require(given, _SECRET, field, "8 to 512 printable ASCII characters")
        secret = given or secrets.token_hex(KEY_BYTES)
        return Credential(secret, sealed_secret=seal(settings, secret))
    _require(given, _KEY, field, "16 to 512 visible ASCII characters")
    key = given or KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    # Of a short one less is shown, so that enough of it stays unknown.
    return Credential(key, key_prefix=key[: min(SHOWN_CHARACTERS, len(key) // 4)], key_hash=hash_key(key))


def hash_key(key: str) -> str:
    """By which a key is found."""
    return sha256(key.encode()).hexdigest()


def seal(settings: Settings, secret: str) -> str:
    """The secret as it may be kept; raises BadRequest where AGENTEX_SECRET_KEY is not set."""
    box = _box(settings)
    if box is None:
        raise BadRequest(
            "signing secrets can only be kept by a server that has the setting AGENTEX_SECRET_KEY "
            "(32 random bytes in base64, e.g. from `openssl rand -base64 32`); ask its operator to set it"
        )
    return box.encrypt(secret.encode()).decode()


def unseal(settings: Settings, sealed: str) -> str:
    """The secret again; raises SecretUnreadable without the AGENTEX_SECRET_KEY that it was sealed with."""
    from cryptography.fernet import InvalidToken

    box = _box(settings)
    try:
        if box is not None:
            return box.decrypt(sealed.encode()).decode()
    except InvalidToken:
        pass
    raise SecretUnreadable


def _require(given: str | None, pattern: re.Pattern[str], field: str, what: str) -> None:
    if given is not None and not pattern.fullmatch(given):
        raise InvalidInput(field, f"takes {what}; {len(given)} were given")


def _box(settings: Settings) -> MultiFernet | None:
    # Here, for a process that keeps no signing secrets does without 10 MB.
    from cryptography.fernet import Fernet, MultiFernet

    if settings.secret_key is None:
        return None
    return MultiFernet([Fernet(key) for key in settings.secret_key.get_secret_value().split(",")])
