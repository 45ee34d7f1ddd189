"""Who asks too often: 429 with Retry-After, by address for what opens nothing, by principal for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

import httpx2
import pytest

from agentex.auth.principal import Principal, PrincipalType
from agentex.errors import Unauthorized
from tests.api.edge.conftest import Opened
from tests.support.api import problem
from tests.support.authz import ScriptedAuthz

SLOW = "0.001"
PROXY = {"trusted_proxies": (ip_network("192.0.2.1/32"),)}


class Keys(ScriptedAuthz):
    """Callers have keys; there are two good ones."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Whose key it is."""
        given = headers.get("authorization", "")
        if given not in {"Bearer ann", "Bearer bob"}:
            raise Unauthorized
        return Principal(principal_type=PrincipalType.USER, user_id=given.removeprefix("Bearer "))


@pytest.fixture
def authz() -> ScriptedAuthz:
    return Keys()


def key(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def statuses(client: httpx2.AsyncClient, count: int, headers: dict[str, str]) -> list[int]:
    return [(await client.get("/agents", headers=headers)).status_code for _ in range(count)]


async def test_guessing_keys_ends_in_429_and_ann_goes_on(opened: Opened) -> None:
    async with opened(rate_limit_per_address=f"{SLOW}:3") as client:
        assert await statuses(client, 1, key("ann")) == [200]
        guessed = [(await statuses(client, 1, key(f"guess {n}")))[0] for n in range(6)]
        refused = await client.get("/agents", headers=key("guess"))
        assert await statuses(client, 20, key("ann")) == [200] * 20

    assert guessed == [401, 401, 401, 429, 429, 429]
    message = "too many requests of this address; wait as long as Retry-After says"
    assert refused.json() == problem("/agents", 429, "rate-limited", message)
    assert int(refused.headers["retry-after"]) > 0
    assert "x-should-retry" not in refused.headers


async def test_other_addresses_are_not_kept_out(opened: Opened) -> None:
    async with opened(rate_limit_per_address=f"{SLOW}:3", **PROXY) as client:
        for _ in range(5):
            await client.get("/agents", headers={"x-forwarded-for": "203.0.113.9"})
        answers = [
            (await client.get("/agents", headers={"x-forwarded-for": address})).status_code
            for address in ("203.0.113.9", "6.6.6.6, 203.0.113.9", "203.0.113.10")
        ]
    assert answers == [429, 429, 401]


async def test_an_address_that_a_client_names_itself_is_not_taken_for_its_own(opened: Opened) -> None:
    async with opened(rate_limit_per_address=f"{SLOW}:3") as client:
        answers = [
            (await client.get("/agents", headers={"x-forwarded-for": f"203.0.113.{n}"})).status_code
            for n in range(5)
        ]
    assert answers == [401, 401, 401, 429, 429]


async def test_a_principal_that_asks_too_often_is_refused_and_another_is_not(opened: Opened) -> None:
    async with opened(rate_limit_per_principal=f"{SLOW}:3") as client:
        assert await statuses(client, 5, key("ann")) == [200, 200, 200, 429, 429]
        assert await statuses(client, 1, key("bob")) == [200]
        refused = await client.get("/agents", headers=key("ann"))

    message = "too many requests of this principal; wait as long as Retry-After says"
    assert refused.json() == problem("/agents", 429, "rate-limited", message)
    assert int(refused.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_never_refused(opened: Opened, path: str) -> None:
    limits = {"rate_limit_per_address": f"{SLOW}:1", "rate_limit_per_principal": f"{SLOW}:1"}
    async with opened(**limits) as client:
        assert (await statuses(client, 3, key("guess")))[-1] == 429
        answers = [(await client.get(path)).status_code for _ in range(150)]
    assert 429 not in answers


async def test_what_is_not_there_is_no_guess(opened: Opened) -> None:
    async with opened(rate_limit_per_address=f"{SLOW}:3") as client:
        answers = [(await client.get("/nowhere")).status_code for _ in range(50)]
    assert answers == [404] * 50


@pytest.mark.parametrize("setting", ["rate_limit_per_address", "rate_limit_per_principal"])
async def test_empty_is_off(opened: Opened, setting: str) -> None:
    async with opened(**{setting: ""}) as client:
        assert await statuses(client, 30, key("ann")) == [200] * 30
