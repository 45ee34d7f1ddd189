"""AGENTEX_AUTH=oidc: which tokens open something, as whom, and what becomes of the member's row."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.utils import base64url_encode

from agentex.app import create_app
from agentex.auth.claims import FOLLOW_SQL
from agentex.auth.principal import Principal, PrincipalType, agent_principal
from agentex.auth.providers.oidc import OidcProvider
from agentex.auth.rules import Role
from agentex.auth.service import KeyWanted, make_key, put_member
from agentex.database import rows
from agentex.errors import AuthorizerUnavailable, Unauthorized
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from tests.support.api import Json
from tests.support.oidc_issuer import AUDIENCE, OTHER, SIGNING, Issuer, jwk, rsa_key, unsigned

ALICE = Principal(principal_type=PrincipalType.USER, user_id="alice")
ROLES = {"oidc_roles_claim": "realm_access.roles", "oidc_roles": "admins=admin,staff=viewer,makers=editor"}


def changed(settings: Settings, issuer: Issuer, **changes: object) -> Settings:
    told: Json = {
        "auth": "oidc",
        "oidc_issuer": issuer.url,
        "oidc_audience": AUDIENCE,
        "oidc_timeout_seconds": 1,
    }
    kept = settings.model_dump(exclude_unset=True, by_alias=False)
    return Settings.model_validate({**kept, "ENABLE_AGENT_RUN_SCHEDULES": True, **told, **changes})


@pytest.fixture
async def oidc(settings: Settings, issuer: Issuer, resources: Resources) -> AsyncIterator[OidcProvider]:
    provider = OidcProvider(changed(settings, issuer, **ROLES), resources.db)
    yield provider
    await provider.aclose()


async def principal(provider: OidcProvider, token: str) -> Principal:
    return await provider.authenticate({"authorization": f"Bearer {token}"})


async def refusal(provider: OidcProvider, token: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await principal(provider, token)
    return caught.value.message


async def members(resources: Resources) -> dict[str, str | None]:
    found = await rows(resources.db, "SELECT account_id, name, role FROM members ORDER BY name")
    return {f"{row['account_id']}/{row['name']}": row["role"] for row in found}


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


def signed(claims: Json, header: Json | None = None) -> str:
    """A token with claims or a header that the library itself would not write, signed all the same."""
    parts = [header or {"alg": "RS256", "kid": "one"}, claims]
    said = b".".join(base64url_encode(json.dumps(part).encode()) for part in parts)
    signature = jwt.get_algorithm_by_name("RS256").sign(said, SIGNING)
    return said.decode() + "." + base64url_encode(signature).decode()


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


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        (["staff"], "viewer"),
        (["staff", "admins", "makers"], "admin"),
        ("makers", "editor"),
        (["nobody"], None),
        ([7, None, ["admins"]], None),
        ({"admins": True}, None),
        (None, None),
    ],
    ids=str,
)
async def test_roles_come_of_the_claim_and_the_highest_counts(
    oidc: OidcProvider, issuer: Issuer, resources: Resources, roles: object, role: str | None
) -> None:
    await principal(oidc, issuer.token(realm_access={"roles": roles}))
    assert await members(resources) == {"default/user:alice": role}


async def test_a_claim_whose_name_has_dots(settings: Settings, issuer: Issuer, resources: Resources) -> None:
    name = "https://agentex.test/roles"
    told = changed(settings, issuer, oidc_roles_claim=name, oidc_roles="a=editor", oidc_default_role="viewer")
    provider = OidcProvider(told, resources.db)
    await principal(provider, signed(issuer.claims(**{name: ["a"]})))
    await principal(provider, issuer.token(sub="bob"))
    await provider.aclose()
    assert await members(resources) == {"default/user:alice": "editor", "default/user:bob": "viewer"}


@pytest.mark.parametrize(
    ("claim", "claims", "name"),
    [
        ("client_id", {"client_id": "ci"}, "service_account:ci"),
        ("client_id", {}, "user:alice"),
        ("gty=client-credentials", {"gty": "client-credentials"}, "service_account:alice"),
        ("gty=client-credentials", {"gty": "password"}, "user:alice"),
    ],
)
async def test_whose_token_it_is(
    settings: Settings, issuer: Issuer, resources: Resources, claim: str, claims: Json, name: str
) -> None:
    told = changed(settings, issuer, oidc_service_account_claim=claim, oidc_account_claim="org.id")
    provider = OidcProvider(told, resources.db)
    found = await principal(provider, issuer.token(org={"id": "acme"}, **claims))
    assert (found.account_id, found.creator) == ("acme", name)
    assert "'org.id'" in await refusal(provider, issuer.token(**claims))
    await provider.aclose()
    assert await members(resources) == {f"acme/{name}": None}


async def written(resources: Resources) -> object:
    return (await rows(resources.db, "SELECT updated_at, xmin::text AS version FROM members"))[0]


async def test_the_row_is_written_when_the_claims_change_and_not_before(
    oidc: OidcProvider, issuer: Issuer, resources: Resources
) -> None:
    await principal(oidc, issuer.token(realm_access={"roles": ["staff"]}))
    before = await written(resources)
    for _ in range(3):
        await principal(oidc, issuer.token(realm_access={"roles": ["staff"]}))
    assert await written(resources) == before
    await principal(oidc, issuer.token(realm_access={"roles": ["makers"]}))
    assert await written(resources) != before
    assert await members(resources) == {"default/user:alice": "editor"}


async def test_an_older_token_brings_no_role_back(
    oidc: OidcProvider, issuer: Issuer, resources: Resources
) -> None:
    now = int(time.time())
    old = issuer.token(realm_access={"roles": ["admins"]}, iat=now - 300)
    await principal(oidc, old)
    await principal(oidc, issuer.token(realm_access={"roles": ["staff"]}, iat=now - 200))
    # Says the same, later: what is between the two is older than it.
    await principal(oidc, issuer.token(realm_access={"roles": ["staff"]}, iat=now - 60))
    for token in (old, issuer.token(realm_access={"roles": ["admins"]}, iat=now - 100)):
        await principal(oidc, token)
    assert await members(resources) == {"default/user:alice": "viewer"}


async def test_nobody_comes_back_by_a_token(oidc: OidcProvider, issuer: Issuer, resources: Resources) -> None:
    await principal(oidc, issuer.token())
    await rows(resources.db, "UPDATE members SET disabled_at = now()")
    later = issuer.token(realm_access={"roles": ["admins"]}, iat=int(time.time()) + 5)
    assert "user:alice is disabled" in await refusal(oidc, later)
    found = (await rows(resources.db, "SELECT role, disabled_at FROM members"))[0]
    assert (found["role"], found["disabled_at"] is None) == (None, False)


async def test_a_member_that_is_put_out_in_between_stays_out(
    oidc: OidcProvider, issuer: Issuer, resources: Resources
) -> None:
    """The write itself looks: nothing is known to it of what was read before."""
    await principal(oidc, issuer.token())
    await rows(resources.db, "UPDATE members SET disabled_at = now()")
    await rows(
        resources.db,
        FOLLOW_SQL,
        account_id="default",
        name="user:alice",
        principal=ALICE.model_dump_json(),
        role="admin",
        claims_at=datetime.now(UTC),
    )
    found = (await rows(resources.db, "SELECT role, disabled_at FROM members"))[0]
    assert (found["role"], found["disabled_at"] is None) == (None, False)


async def key_of(resources: Resources, member: Principal, role: Role) -> str:
    async with resources.db.begin() as session:
        await put_member(session, member, role)
        _, made = await make_key(session, resources.settings, KeyWanted(member, "k", "test"))
    return made.text


async def test_agents_keys_go_on_working(oidc: OidcProvider, issuer: Issuer, resources: Resources) -> None:
    agent = agent_principal("default", "greeter")
    key = await key_of(resources, agent, Role.AGENT)
    for headers in ({"x-agent-api-key": key}, {"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        assert await oidc.authenticate(headers) == agent
    assert issuer.asked == {}
    with pytest.raises(Unauthorized, match="different credentials"):
        await oidc.authenticate({"x-agent-api-key": key, "authorization": f"Bearer {issuer.token()}"})
    with pytest.raises(Unauthorized, match="unknown, has expired or was revoked"):
        await oidc.authenticate({"x-agent-api-key": "agx_made-up"})


async def test_through_the_api(settings: Settings, issuer: Issuer) -> None:
    told = changed(settings, issuer, **ROLES)
    async with open_resources(told) as resources:
        transport = httpx2.ASGITransport(app=create_app(told, resources=resources))
        async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as client:
            staff = {"authorization": f"Bearer {issuer.token(realm_access={'roles': ['staff']})}"}
            guest = {"authorization": f"Bearer {issuer.token(sub='bob')}"}
            answers = [
                await client.get("/agents", headers=headers)
                for headers in (staff, guest, {}, {"authorization": "Bearer a.b.c"})
            ]
            assert [answer.status_code for answer in answers] == [200, 200, 401, 401]
            body = {"name": "x", "description": "", "acp_url": "http://127.0.0.1:9", "acp_type": "async"}
            refused = await client.post("/agents/register", json=body, headers=staff)
            assert refused.status_code == 403
            # The keys are known, and the token names another one: nobody can tell while the issuer is away.
            provider = resources.authz
            assert isinstance(provider, OidcProvider)
            provider.keys.clock = lambda: float("inf")
            await issuer.close()
            named = {"authorization": f"Bearer {issuer.token(header={'kid': 'new'})}"}
            away = await client.get("/agents", headers=named)
            assert (away.status_code, away.json()["type"]) == (
                503,
                "urn:agentex:problem:authorizer-unavailable",
            )
