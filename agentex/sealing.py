"""Secrets that have to be read again, as they may be kept: sealed with AGENTEX_SECRET_KEY (Fernet)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentex.errors import BadRequest, SecretUnreadable
from agentex.settings import Settings

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


def seal(settings: Settings, secret: str) -> str:
    """The secret as it may be kept; raises BadRequest where AGENTEX_SECRET_KEY is not set."""
    box = _box(settings)
    if box is None:
        raise BadRequest(
            "signing secrets and agents' keys can only be kept by a server that has the setting "
            "AGENTEX_SECRET_KEY (32 random bytes in base64, e.g. from `openssl rand -base64 32`); ask its "
            "operator to set it"
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


def _box(settings: Settings) -> MultiFernet | None:
    # Here, for a process that keeps no secrets does without 10 MB.
    from cryptography.fernet import Fernet, MultiFernet

    if settings.secret_key is None:
        return None
    return MultiFernet([Fernet(key) for key in settings.secret_key.get_secret_value().split(",")])
