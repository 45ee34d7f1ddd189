"""API keys: `agx_` and 32 random bytes. Made once, kept as a hash, found again by it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from agentex.auth.principal import Principal
from agentex.database import Database, rows
from agentex.errors import Unauthorized

# By which a scanner of leaked secrets, and a person, recognise what it is.
KEY_PREFIX = "agx_"
KEY_BYTES = 32
SHOWN_CHARACTERS = 10
# Where a key may stand; agents' SDKs send the last one.
AUTHORIZATION, API_KEY_HEADER, AGENT_KEY_HEADER = "authorization", "x-api-key", "x-agent-api-key"
_BEARER = "bearer "
# What nobody sends by mistake, and costs nothing to hash.
MAX_KEY_LENGTH = 512

# The key's use is noted once a minute, so that a key that is much used is not a row that is much written.
_KEY_SQL = """
    WITH found AS (
        SELECT k.id, k.scopes, k.expires_at, k.last_used_at, m.principal FROM api_keys k
        JOIN members m ON m.account_id = k.account_id AND m.name = k.member
        WHERE k.key_hash = :key_hash AND k.revoked_at IS NULL AND m.disabled_at IS NULL
            AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
    ), used AS (
        UPDATE api_keys k SET last_used_at = clock_timestamp() FROM found
        WHERE k.id = found.id
            AND (found.last_used_at IS NULL OR found.last_used_at < clock_timestamp() - interval '1 minute')
    )
    SELECT principal::text AS principal, scopes::text AS scopes, expires_at FROM found
"""


@dataclass(frozen=True, repr=False)
class NewKey:
    """A key in the clear, and the columns that are kept of it."""

    text: str
    prefix: str
    hash: str


def new_key() -> NewKey:
    """A key that nobody has had before."""
    text = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return NewKey(text, text[:SHOWN_CHARACTERS], hash_key(text))


def hash_key(key: str) -> str:
    """By which a key is found: looked up as a whole in an index, so that no comparison tells of a part."""
    return sha256(key.encode()).hexdigest()


def presented(headers: Mapping[str, str]) -> str | None:
    """The one credential of a request, None without any; raises Unauthorized for two that differ."""
    # All of them, for a header may come twice.
    given = {_credential(name.lower(), value) for name, value in headers.items()} - {""}
    if len(given) > 1:
        raise Unauthorized(
            f"{AUTHORIZATION}, {API_KEY_HEADER} and {AGENT_KEY_HEADER} hold different credentials; send one"
        )
    return next(iter(given), None)


def own_key(headers: Mapping[str, str]) -> str | None:
    """The key of ours that a request shows, where others' credentials are taken as well; None without one.

    Raises Unauthorized for one of ours beside a credential of others'.
    """
    shown = (bearer(headers), headers.get(API_KEY_HEADER, ""), headers.get(AGENT_KEY_HEADER, ""))
    return presented(headers) if any(value.startswith(KEY_PREFIX) for value in shown) else None


def bearer(headers: Mapping[str, str]) -> str:
    """The bearer token of a request, empty without one."""
    return _credential(AUTHORIZATION, headers.get(AUTHORIZATION, ""))


async def principal_of_key(db: Database, key: str) -> Principal:
    """Who a key stands for, with its scopes; raises Unauthorized for one that opens nothing (any more)."""
    if len(key) <= MAX_KEY_LENGTH:
        found = await rows(db, _KEY_SQL, key_hash=hash_key(key))
        if found:
            principal = Principal.model_validate_json(found[0]["principal"])
            limits = {"scopes": _scopes(found[0]["scopes"]), "expires_at": found[0]["expires_at"]}
            return principal.model_copy(update=limits)
    raise Unauthorized("the API key is unknown, has expired or was revoked")


def _credential(header: str, value: str) -> str:
    """The credential that a header holds, empty for none."""
    if header == AUTHORIZATION:
        return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else ""
    return value if header in {API_KEY_HEADER, AGENT_KEY_HEADER} else ""


def _scopes(stored: str | None) -> frozenset[str] | None:
    return frozenset(json.loads(stored)) if stored else None
