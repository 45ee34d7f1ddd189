"""Callers bring a token of an OIDC issuer; what they may do is decided here, by roles, ownership and grants.

Keys of this service open as well: agents have nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Decision, Operation, ResourceRef, ResourceType, Visible
from agentex.auth.claims import claimed, follow
from agentex.auth.issuer_keys import IssuerKeys
from agentex.auth.keys import bearer, own_key, principal_of_key
from agentex.auth.local import LocalAuthorizer
from agentex.auth.principal import Principal
from agentex.database import Database
from agentex.errors import Unauthorized
from agentex.settings import Settings

# A token with all groups of a large directory; servers before this one take 8 to 16 kB of headers.
MAX_TOKEN_LENGTH = 16_384
# What the header of a token may ask for is nothing: a key that it brings (jwk, jku, x5u, x5c) is never looked
# at, and an extension that it calls critical is not known here (RFC 7515, 4.1.11).
_CRITICAL = "crit"


class OidcProvider:
    """Tokens of AGENTEX_OIDC_ISSUER for AGENTEX_OIDC_AUDIENCE; members follow their claims."""

    knows_tasks = True

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self.keys = IssuerKeys(settings)
        self._authorizer = LocalAuthorizer(db)

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Whose token, or whose key of this service, it is."""
        key = own_key(headers)
        if key is not None:
            return await principal_of_key(self._db, key)
        token = bearer(headers)
        if not token:
            raise Unauthorized("a token is missing: send `Authorization: Bearer …` with one of the issuer's")
        who = claimed(self._settings, await self._claims(token))
        await follow(self._db, who)
        return who.principal

    async def authorize(
        self, session: AsyncSession, principal: Principal, operation: Operation, resource: ResourceRef
    ) -> Decision:
        """Decided by members, roles, ownership and grants."""
        return await self._authorizer.authorize(principal, operation, resource, session)

    async def visible(self, session: AsyncSession, principal: Principal, kind: ResourceType) -> Visible:
        """All of the type, or what is its own and what was granted to it."""
        return await self._authorizer.visible(principal, kind, session)

    async def aclose(self) -> None:
        """Ask the issuer no more."""
        await self.keys.aclose()

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that is the issuer's, for us, and good now; else Unauthorized."""
        settings = self._settings
        algorithm, key_id = self._named(token)
        key = await self.keys.find(algorithm, key_id)
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=settings.oidc_audience,
                issuer=settings.oidc_issuer,
                leeway=settings.oidc_leeway_seconds,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token does not open anything here: {_why(error)}") from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized("the token's claims are not what a token has") from None

    def _named(self, token: str) -> tuple[str, str | None]:
        """The algorithm and the key that the token says it is signed with, before anything is believed."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthorized(f"the token is longer than {MAX_TOKEN_LENGTH} characters")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthorized("the token is no signed JWT (JWS), which is what is taken here") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._settings.oidc_algorithms:
            allowed = ", ".join(sorted(self._settings.oidc_algorithms))
            raise Unauthorized(f"the token's alg is {str(algorithm)[:40]!r}; taken are {allowed}")
        if _CRITICAL in header:
            raise Unauthorized("the token's header has `crit`: an extension that is not known here")
        return algorithm, key_id


def _why(error: jwt.PyJWTError) -> str:
    """In words of ours: the library's may hold what the token holds."""
    reasons = {
        jwt.ExpiredSignatureError: "it has expired",
        jwt.ImmatureSignatureError: "it is not valid yet (nbf, iat)",
        jwt.InvalidAudienceError: "it is for another audience (aud)",
        jwt.InvalidIssuerError: "it is of another issuer (iss)",
        jwt.InvalidSignatureError: "its signature is not the key's",
    }
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"its claim {error.claim} is missing"
    return next((why for kind, why in reasons.items() if isinstance(error, kind)), "its claims are not valid")
