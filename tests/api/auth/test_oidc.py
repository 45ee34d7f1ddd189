"""AGENTEX_AUTH=oidc: which tokens open something, and which do not."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.utils import base64url_encode

from agentex.auth.providers.oidc import OidcProvider
from agentex.errors import Unauthorized
from agentex.resources import Resources
from tests.api.auth.oidc import ALICE, members, principal, refusal, signed
from tests.support.api import Json
from tests.support.oidc_issuer import AUDIENCE, OTHER, SIGNING, Issuer, jwk, unsigned


async def test_a_good_token_is_its_subject(oidc: OidcProvider, issuer: Issuer, resources: Resources) -> None:
    assert await principal(oidc, issuer.token()) == ALICE
    assert await members(resources) == {"default/user:alice": None}
    assert issuer.asked == {"/.well-known/openid-configuration": 1, "/keys": 1}


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_each_algorithm_that_is_taken(oidc: OidcProvider, issuer: Issuer, algorithm: str) -> None:
    made: dict[str, Any] = {
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    key = made.get(algorithm, SIGNING)
    issuer.keys.append(jwk(key, algorithm, kid="two"))
    assert await principal(oidc, issuer.token(key, algorithm, header={"kid": "two"})) == ALICE


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": int(time.time()) - 3600}, "it has expired"),
        ({"exp": None}, "its claim exp is missing"),
        ({"exp": "soon"}, "its claims are not valid"),
        ({"aud": "https://other.test"}, "it is for another audience (aud)"),
        ({"aud": None}, "its claim aud is missing"),
        ({"aud": [AUDIENCE + "/"]}, "it is for another audience (aud)"),
        ({"iss": "https://evil.test"}, "it is of another issuer (iss)"),
        ({"iss": None}, "its claim iss is missing"),
        ({"sub": None}, "its claim sub is missing"),
        ({"sub": 7}, "its claims are not valid"),
        ({"nbf": int(time.time()) + 3600}, "it is not valid yet (nbf, iat)"),
        ({"iat": int(time.time()) + 3600}, "it is not valid yet (nbf, iat)"),
    ],
)
async def test_a_token_with_a_wrong_claim_opens_nothing(
    oidc: OidcProvider, issuer: Issuer, resources: Resources, changes: Json, why: str
) -> None:
    # The library makes none whose subject is no text.
    token = signed(issuer.claims(**changes)) if changes.get("sub") == 7 else issuer.token(**changes)
    assert await refusal(oidc, token) == f"the token does not open anything here: {why}"
    assert await members(resources) == {}


@pytest.mark.parametrize(
    "sub", ["", "a\x00b", "a\nb", "x" * 256, "\ud800"], ids=["empty", "nul", "line", "long", "half"]
)
async def test_a_name_that_none_is_opens_nothing(oidc: OidcProvider, issuer: Issuer, sub: str) -> None:
    assert "'sub'" in await refusal(oidc, signed(issuer.claims(sub=sub)))


@pytest.mark.parametrize("exp", [float("inf"), float("nan"), {}, [1]], ids=["inf", "nan", "object", "list"])
async def test_an_exp_that_is_no_time_is_refused_in_words(
    oidc: OidcProvider, issuer: Issuer, exp: object
) -> None:
    assert "the token" in await refusal(oidc, signed(issuer.claims(exp=exp)))


async def test_a_little_past_its_end_is_within_the_leeway(oidc: OidcProvider, issuer: Issuer) -> None:
    assert await principal(oidc, issuer.token(exp=int(time.time()) - 10)) == ALICE


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "HS512", "RS384", ["RS256"], None, 7, {}], ids=str
)
async def test_an_algorithm_that_is_not_taken(oidc: OidcProvider, issuer: Issuer, algorithm: object) -> None:
    token = unsigned({"alg": algorithm, "kid": "one"}, issuer.claims())
    assert "the token" in await refusal(oidc, token)
    assert issuer.asked == {}


async def test_the_public_key_is_no_secret_to_sign_with(oidc: OidcProvider, issuer: Issuer) -> None:
    assert await principal(oidc, issuer.token()) == ALICE
    public = SIGNING.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    said = unsigned({"alg": "HS256", "kid": "one"}, issuer.claims()).rpartition(".")[0]
    signature = hmac.new(public, said.encode(), hashlib.sha256).digest()
    token = f"{said}.{base64url_encode(signature).decode()}"
    assert await refusal(oidc, token) == "the token's alg is 'HS256'; taken are ES256, EdDSA, PS256, RS256"


async def test_a_key_of_another_kind_than_the_algorithm_s(oidc: OidcProvider, issuer: Issuer) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    token = issuer.token(key, "ES256", header={"kid": "one"})
    assert await refusal(oidc, token) == "the token names no key of the issuer's that fits its algorithm"


async def test_a_key_that_is_for_another_algorithm(oidc: OidcProvider, issuer: Issuer) -> None:
    issuer.keys = [jwk(SIGNING, "RS256", kid="one", alg="RS256")]
    assert "names no key" in await refusal(oidc, issuer.token(algorithm="PS256"))
    assert await principal(oidc, issuer.token()) == ALICE


async def test_a_signature_of_another_key(oidc: OidcProvider, issuer: Issuer) -> None:
    assert "its signature is not the key's" in await refusal(oidc, issuer.token(OTHER))
    good = issuer.token()
    broken = good[:-8] + ("AAAAAAAA" if not good.endswith("AAAAAAAA") else "BBBBBBBB")
    assert "its signature is not the key's" in await refusal(oidc, broken)


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
async def test_a_key_that_the_token_brings_is_not_looked_at(
    oidc: OidcProvider, issuer: Issuer, name: str
) -> None:
    brought: Json = {
        "jwk": jwk(OTHER, "RS256", kid="one"),
        "jku": f"{issuer.url}/evil",
        "x5u": f"{issuer.url}/evil",
        "x5c": ["MIIB"],
    }
    token = issuer.token(OTHER, header={"kid": "one", name: brought[name]})
    assert "its signature is not the key's" in await refusal(oidc, token)
    assert issuer.asked["/evil"] == 0
    assert await principal(oidc, issuer.token(header={"kid": "one", name: brought[name]})) == ALICE


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "x", None], ids=str)
async def test_what_a_token_calls_critical_is_not_known(
    oidc: OidcProvider, issuer: Issuer, crit: object
) -> None:
    token = signed(issuer.claims(), {"alg": "RS256", "kid": "one", "crit": crit})
    assert "the token" in await refusal(oidc, token)
    assert issuer.asked == {}


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b",
        "a.b.c",
        "....",
        "e30.e30.e30",
        "é.é.é",
        unsigned({"alg": "RS256", "kid": 7}, {}),
        "a" * 20_000,
        base64url_encode(b'{"alg":' + b"[" * 5_000 + b"]" * 5_000 + b"}").decode() + ".e30.e30",
    ],
    ids=["word", "two", "three", "dots", "empty", "accents", "kid", "long", "deep"],
)
async def test_what_is_no_token_is_401(oidc: OidcProvider, issuer: Issuer, token: str) -> None:
    assert "the token" in await refusal(oidc, token)
    assert issuer.asked == {}


async def test_no_token_is_401(oidc: OidcProvider) -> None:
    for headers in (
        {},
        {"authorization": "Basic YTpi"},
        {"x-user-id": "alice"},
        {"authorization": "Bearer "},
    ):
        with pytest.raises(Unauthorized, match="a token is missing"):
            await oidc.authenticate(headers)
