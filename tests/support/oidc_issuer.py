"""An OIDC issuer of a test's own: discovery, keys, and tokens of any kind, good and bad."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from types import TracebackType
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.utils import base64url_encode

from tests.support.api import Json
from tests.support.local_app import serve

AUDIENCE = "https://agentex.test"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


# Made once: one takes 50 ms and more.
SIGNING, OTHER = rsa_key(), rsa_key()


def jwk(key: PrivateKey, algorithm: str, **more: object) -> Json:
    """The public half, as an issuer publishes it."""
    kind = jwt.get_algorithm_by_name(algorithm)
    made: Any = kind.to_jwk(key.public_key(), as_dict=True)  # pyright: ignore[reportArgumentType] - any of them
    return {**made, **more}


def unsigned(header: Json, claims: Json, signature: bytes = b"") -> str:
    """A token with any header and any signature."""
    parts = [base64url_encode(json.dumps(part).encode()) for part in (header, claims)]
    return b".".join([*parts, base64url_encode(signature)]).decode()


class Issuer:
    """On 127.0.0.1; what it answers is changed through its fields.

    keys: what it publishes. status: of all answers. hangs: set, it answers nothing. asked: requests by path.
    """

    def __init__(self) -> None:
        self.keys: list[Json] = [jwk(SIGNING, "RS256", kid="one", use="sig")]
        self.status = 200
        self.hangs = False
        self.said: Json = {}
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.was_asked = asyncio.Event()
        self.url = ""
        self._runner: web.AppRunner | None = None

    def claims(self, **changes: object) -> Json:
        """Those of a good token; None takes one away."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        key: PrivateKey | None = None,
        algorithm: str = "RS256",
        *,
        header: Json | None = None,
        **changes: object,
    ) -> str:
        """A token, by default a good one of alice."""
        headers = {"kid": "one"} if header is None else header
        return jwt.encode(self.claims(**changes), key or SIGNING, algorithm, headers=headers)

    async def __aenter__(self) -> Issuer:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner, self.url = await serve(app)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Listen no more: connections are refused from here on."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked[request.path] += 1
        self.was_asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        said = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.said}
        body = {"keys": self.keys} if request.path == "/keys" else said
        whole = self.body if self.body is not None else json.dumps(body).encode()
        return web.Response(status=self.status, body=whole, headers=self.headers)
