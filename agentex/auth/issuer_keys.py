"""The public keys of an OIDC issuer: fetched, remembered, and looked for again when they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

import jwt
from jwt.algorithms import AllowedPublicKeys

from agentex.addresses import is_base_url, is_private_way
from agentex.auth.outside import Outside
from agentex.errors import AuthorizerUnavailable, Unauthorized
from agentex.settings import Settings
from agentex.telemetry.metrics import OIDC_FETCHES

log = logging.getLogger(__name__)

DISCOVERY_PATH = "/.well-known/openid-configuration"
# Discovery and keys of the large issuers are below 20 kB.
MAX_BYTES = 262_144
MAX_KEYS = 100
_OK = 200
# What a key of each kind may have signed with (RFC 7518, 8037).
_KIND_OF_ALGORITHM = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}

Jwk = Mapping[str, Any]


@dataclass(frozen=True)
class IssuerKey:
    """A key of the issuer's, ready for each algorithm it may have signed with; id as it was published."""

    id: object
    by_algorithm: Mapping[str, AllowedPublicKeys]


class IssuerKeys:
    """The keys, for at most AGENTEX_OIDC_KEYS_SECONDS; while the issuer is away, those that it last had.

    A key that nobody knows is looked for at most every AGENTEX_OIDC_REFETCH_SECONDS, whoever asks for it.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = monotonic) -> None:
        if settings.oidc_issuer is None:
            raise ValueError("there is no issuer: AGENTEX_OIDC_ISSUER")
        self._issuer = settings.oidc_issuer
        self._keys_seconds = settings.oidc_keys_seconds
        self._refetch_seconds = settings.oidc_refetch_seconds
        self.clock = clock
        self._outside = Outside(
            "the OIDC issuer", timeout_seconds=settings.oidc_timeout_seconds, max_bytes=MAX_BYTES
        )
        self._algorithms = settings.oidc_algorithms
        self._keys: Sequence[IssuerKey] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self.fetching: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, key_id: str | None) -> AllowedPublicKeys:
        """The key that a token names. Without a name: the only one there is.

        Raises Unauthorized when there is none, AuthorizerUnavailable when that cannot be known just now.
        """
        # Who comes while somebody looks takes the keys of old meanwhile, if there are any.
        if self._is_old and not (self._keys and self.fetching):
            await self._fetch()
        found = self._fitting(algorithm, key_id)
        if not found:
            await self._fetch()
            found = self._fitting(algorithm, key_id)
        if not found and self._tried_at > self._fetched_at:
            raise AuthorizerUnavailable("the OIDC issuer does not answer, and no key of it is known for this")
        if not found:
            raise Unauthorized("the token names no key of the issuer's that fits its algorithm")
        if len(found) > 1:
            raise Unauthorized("the token does not name its key (kid), and the issuer has several")
        return found[0]

    async def aclose(self) -> None:
        """Ask no more."""
        if self.fetching is not None:
            self.fetching.cancel()
        await self._outside.aclose()

    @property
    def _is_old(self) -> bool:
        return self.clock() - self._fetched_at >= self._keys_seconds

    def _fitting(self, algorithm: str, key_id: str | None) -> list[AllowedPublicKeys]:
        return [
            key.by_algorithm[algorithm]
            for key in self._keys
            if algorithm in key.by_algorithm and (key_id is None or key.id == key_id)
        ]

    async def _fetch(self) -> None:
        """One look at a time, and not too often. Shielded: it is for all, and who began it may go away."""
        if self.fetching is None:
            if self.clock() - self._tried_at < self._refetch_seconds:
                return
            self.fetching = asyncio.create_task(self._look())
        await asyncio.shield(self.fetching)

    async def _look(self) -> None:
        self._tried_at = self.clock()
        try:
            self._keys = await self._fetched()
            # Not before it was tried, so that an issuer that has answered does not look as if it had not.
            self._fetched_at = self._tried_at
            OIDC_FETCHES.labels(outcome="fetched").inc()
        except AuthorizerUnavailable as error:
            OIDC_FETCHES.labels(outcome="failed").inc()
            log.warning(
                "the OIDC issuer's keys could not be fetched",
                extra={"action": "oidc.keys", "error": error.message, "keys_known": len(self._keys)},
            )
        finally:
            self.fetching = None

    async def _fetched(self) -> Sequence[IssuerKey]:
        said = await self._json(self._issuer.rstrip("/") + DISCOVERY_PATH)
        if said.get("issuer") != self._issuer:
            raise AuthorizerUnavailable(
                f"{DISCOVERY_PATH} is of the issuer {str(said.get('issuer'))[:200]!r}, not of the configured "
                f"{self._issuer!r}: AGENTEX_OIDC_ISSUER has to be it to the letter"
            )
        url = said.get("jwks_uri")
        if not isinstance(url, str) or not _may_be_asked(url, self._issuer):
            raise AuthorizerUnavailable("the OIDC issuer's jwks_uri is no https URL")
        keys = (await self._json(url)).get("keys")
        listed = cast("list[object]", keys)[:MAX_KEYS] if isinstance(keys, list) else []
        usable = [key for jwk in listed if (key := usable_key(jwk, self._algorithms)) is not None]
        if not usable:
            raise AuthorizerUnavailable("the OIDC issuer publishes no key that a signature can be checked by")
        return usable

    async def _json(self, url: str) -> Jwk:
        answer = await self._outside.get(url)
        if answer.status != _OK:
            raise AuthorizerUnavailable(f"the OIDC issuer answers {answer.status} for its keys")
        return answer.json_object("the OIDC issuer")


def usable_key(jwk: object, algorithms: Collection[str]) -> IssuerKey | None:
    """A public key that signatures of these algorithms are checked with; None for anything else.

    A secret one (oct), a private half (d), one for encryption, a short or a broken one is nothing else.
    """
    if not isinstance(jwk, dict):
        return None
    said = cast("Jwk", jwk)
    operations = said.get("key_ops")
    if "d" in said or said.get("use", "sig") != "sig":
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    made = {name: key for name in algorithms if (key := _public_key(said, name)) is not None}
    return IssuerKey(said.get("kid"), made) if made else None


def _public_key(jwk: Jwk, algorithm: str) -> AllowedPublicKeys | None:
    """The key as this algorithm takes it; None when it is of another kind, or for another algorithm."""
    if jwk.get("kty") != _KIND_OF_ALGORITHM[algorithm[:2]] or jwk.get("alg", algorithm) != algorithm:
        return None
    kind = jwt.get_algorithm_by_name(algorithm)
    try:
        key: Any = kind.prepare_key(kind.from_jwk(dict(jwk)))
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return None if kind.check_key_length(key) else key


def _may_be_asked(url: str, issuer: str) -> bool:
    """Whether keys may come from there: by https, or by http on this machine when the issuer is there."""
    if not is_base_url(url.partition("?")[0]):
        return False
    return url.startswith("https://") or (is_private_way(url) and issuer.startswith("http://"))
