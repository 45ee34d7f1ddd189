"""AGENTEX_AUTH=oidc: as whom a token acts, and what becomes of the member's row."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.claims import FOLLOW_SQL
from agentex.auth.principal import Principal, agent_principal
from agentex.auth.providers.oidc import OidcProvider
from agentex.auth.rules import Role
from agentex.auth.service import KeyWanted, make_key, put_member
from agentex.database import rows
from agentex.errors import Unauthorized
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from tests.api.auth.oidc import ALICE, ROLES, changed, members, principal, refusal, signed
from tests.support.api import Json
from tests.support.oidc_issuer import Issuer


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
