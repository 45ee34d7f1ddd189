"""Keys and signing secrets: made, checked, hashed, sealed. Nothing here is logged or quoted in a message."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from agentex.agent_api_keys.models import SIGNING_TYPES, ApiKeyType
from agentex.auth.keys import KEY_BYTES, KEY_PREFIX, SHOWN_CHARACTERS, hash_key
from agentex.errors import BadRequest, InvalidInput
from agentex.sealing import seal
from agentex.settings import Settings

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


def _require(given: str | None, pattern: re.Pattern[str], field: str, what: str) -> None:
    if given is not None and not pattern.fullmatch(given):
        raise InvalidInput(field, f"takes {what}; {len(given)} were given")
