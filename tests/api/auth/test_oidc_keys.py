"""AGENTEX_AUTH=oidc: the issuer's keys, fetched, remembered and looked for again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentex.auth.providers.oidc import OidcProvider
from agentex.errors import AuthorizerUnavailable
from tests.api.auth.oidc import ALICE, principal, refusal
from tests.support.api import Json
from tests.support.oidc_issuer import OTHER, SIGNING, Issuer, jwk, rsa_key


async def test_of_several_keys_a_token_has_to_name_one(oidc: OidcProvider, issuer: Issuer) -> None:
    assert await principal(oidc, issuer.token(header={})) == ALICE


async def test_of_several_keys_a_token_without_a_name_opens_nothing(
    oidc: OidcProvider, issuer: Issuer
) -> None:
    issuer.keys.append(jwk(OTHER, "RS256", kid="two"))
    assert "does not name its key (kid)" in await refusal(oidc, issuer.token(header={}))


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "kid": "one", "k": "c2VjcmV0"},
        {**jwk(SIGNING, "RS256", kid="one"), "use": "enc"},
        {**jwk(SIGNING, "RS256", kid="one"), "key_ops": ["encrypt"]},
        {**jwk(SIGNING, "RS256", kid="one"), "d": "AQAB"},
        {"kty": "RSA", "kid": "one", "n": 7, "e": None},
        {"kty": "EC", "kid": "one", "crv": "P-256", "x": "AA", "y": "AA"},
        jwk(rsa_key(1024), "RS256", kid="one"),
        "one",
        None,
    ],
    ids=["oct", "enc", "key_ops", "private", "broken", "off-curve", "short", "text", "null"],
)
async def test_a_key_that_checks_no_signatures_is_none(
    oidc: OidcProvider, issuer: Issuer, key: object
) -> None:
    listed: Any = key
    issuer.keys = [listed]
    with pytest.raises(AuthorizerUnavailable):
        await principal(oidc, issuer.token())


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(oidc: OidcProvider) -> Clock:
    made = Clock()
    oidc.keys.clock = made
    return made


async def test_keys_are_fetched_once_and_again_when_they_are_old(
    oidc: OidcProvider, issuer: Issuer, clock: Clock
) -> None:
    for _ in range(3):
        await principal(oidc, issuer.token())
    assert issuer.asked["/keys"] == 1
    clock.now += 601
    issuer.keys = [jwk(OTHER, "RS256", kid="one")]
    assert await principal(oidc, issuer.token(OTHER)) == ALICE
    assert issuer.asked["/keys"] == 2
    assert "its signature is not the key's" in await refusal(oidc, issuer.token())


async def test_a_new_key_is_looked_for_when_a_token_names_it(
    oidc: OidcProvider, issuer: Issuer, clock: Clock
) -> None:
    await principal(oidc, issuer.token())
    issuer.keys.append(jwk(OTHER, "RS256", kid="two"))
    clock.now += 11
    assert await principal(oidc, issuer.token(OTHER, header={"kid": "two"})) == ALICE
    assert issuer.asked["/keys"] == 2


async def test_names_that_are_made_up_do_not_make_it_look_more_often(
    oidc: OidcProvider, issuer: Issuer, clock: Clock
) -> None:
    await principal(oidc, issuer.token())
    for number in range(20):
        assert "names no key" in await refusal(oidc, issuer.token(OTHER, header={"kid": str(number)}))
    assert issuer.asked["/keys"] == 1
    clock.now += 11
    await asyncio.gather(*[refusal(oidc, issuer.token(OTHER, header={"kid": str(n)})) for n in range(20)])
    assert issuer.asked["/keys"] == 2


async def test_an_issuer_that_is_away_closes_nobody_out_whose_key_is_known(
    oidc: OidcProvider, issuer: Issuer, clock: Clock
) -> None:
    await principal(oidc, issuer.token())
    await issuer.close()
    clock.now += 100_000
    assert await principal(oidc, issuer.token()) == ALICE
    with pytest.raises(AuthorizerUnavailable, match="no key of it is known"):
        await principal(oidc, issuer.token(OTHER, header={"kid": "two"}))


@pytest.mark.parametrize(
    "fault", ["refused", "hangs", "502", "302", "html", "large", "gzip", "issuer", "jwks_uri", "http"]
)
async def test_without_any_key_an_outage_is_a_503(oidc: OidcProvider, issuer: Issuer, fault: str) -> None:
    if fault == "refused":
        await issuer.close()
    elif fault in {"502", "302"}:
        issuer.status, issuer.headers = int(fault), {"location": f"{issuer.url}/elsewhere"}
    elif fault in {"html", "large"}:
        issuer.body = b"<html>" if fault == "html" else b"{" + b" " * 300_000 + b"}"
    elif fault == "gzip":
        issuer.headers = {"content-encoding": "gzip"}
        issuer.body = b"\x1f\x8b"
    issuer.hangs = fault == "hangs"
    wrong: Json = {"issuer": {"issuer": "https://evil.test"}, "jwks_uri": {"jwks_uri": 7}}
    issuer.said = wrong.get(fault, {"jwks_uri": "http://169.254.169.254/keys"} if fault == "http" else {})
    with pytest.raises(AuthorizerUnavailable):
        await principal(oidc, issuer.token())
    assert issuer.asked["/elsewhere"] == 0


async def test_who_goes_away_does_not_end_the_look_for_others(
    oidc: OidcProvider, issuer: Issuer, clock: Clock
) -> None:
    first = asyncio.create_task(principal(oidc, issuer.token()))
    second = asyncio.create_task(principal(oidc, issuer.token()))
    await issuer.was_asked.wait()
    first.cancel()
    assert await second == ALICE
    assert issuer.asked["/keys"] == 1
