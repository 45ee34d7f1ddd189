"""A stream ends with the credential that has opened it, at the latest with its next sign of life."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2
import pytest

from agentex.auth.principal import Principal, PrincipalType
from agentex.errors import AuthorizerUnavailable, Unauthorized
from agentex.resources import Resources
from agentex.streams import admission, hub
from agentex.streams.hub import REFUSED, UNASKED, Hub
from tests.api.streams.conftest import connected, full, post, use_settings
from tests.support.api import Json
from tests.support.authz import ScriptedAuthz
from tests.support.sse import follow

PING = 0.2
ERROR: Json = {"type": "error", "message": REFUSED}


class Door(ScriptedAuthz):
    """Says of every credential what it is told to: good, refused, away, hangs, or another's."""

    def __init__(self) -> None:
        super().__init__()
        self.says = "good"
        self.times = 0

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The same principal while it is good."""
        self.times += 1
        if self.says == "refused":
            raise Unauthorized
        if self.says == "away":
            raise AuthorizerUnavailable
        if self.says == "hangs":
            await asyncio.Event().wait()
        name = "mallory" if self.says == "another's" else "tester"
        return Principal(principal_type=PrincipalType.USER, user_id=name)


@pytest.fixture
def authz() -> Door:
    return Door()


@pytest.fixture
def quick(client: httpx2.AsyncClient, resources: Resources) -> Hub:
    """Streams with many signs of life."""
    return use_settings(resources, stream_ping_seconds=PING)


@pytest.mark.parametrize("says", ["refused", "another's"])
async def test_an_idle_stream_ends_before_its_next_sign_of_life(
    client: httpx2.AsyncClient, quick: Hub, url: str, task: Json, authz: Door, says: str
) -> None:
    async with follow(url, task["id"]) as stream:
        assert await stream.next() == connected(task)
        await stream.until_comments(1)
        before = stream.comments
        authz.says = says
        assert await stream.rest() == [ERROR]
        assert stream.comments <= before + 1
        assert quick.readers == set()


async def test_a_busy_stream_ends_though_it_is_never_quiet(
    client: httpx2.AsyncClient, quick: Hub, url: str, task: Json, authz: Door
) -> None:
    async with follow(url, task["id"]) as stream:
        assert await stream.next() == connected(task)
        loop = asyncio.get_running_loop()
        (reader,) = quick.readers
        refused_at: float | None = None
        while reader.ended is None:
            # As if there were always something under way: no sign of life is due.
            reader.quiet_since = loop.time()
            if refused_at is None:
                authz.says, refused_at = "refused", loop.time()
            await asyncio.sleep(0.01)
        assert await stream.rest() == [ERROR]
        assert stream.comments == 0


async def test_nothing_that_waited_is_sent_behind_the_refusal(
    client: httpx2.AsyncClient, quick: Hub, url: str, task: Json, authz: Door
) -> None:
    async with follow(url, task["id"]) as stream:
        assert await stream.next() == connected(task)
        (reader,) = quick.readers
        authz.says = "refused"
        reader.cut(hub.Reason.UNAUTHORIZED, REFUSED)
        authz.says = "good"
        await post(client, task)
        assert await stream.rest() == [ERROR]


@pytest.mark.parametrize("says", ["away", "hangs"])
async def test_a_provider_that_is_away_ends_no_stream_for_a_while(
    client: httpx2.AsyncClient,
    quick: Hub,
    url: str,
    task: Json,
    authz: Door,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
) -> None:
    monkeypatch.setattr(admission, "ASK_SECONDS", 0.05)
    async with follow(url, task["id"]) as stream:
        assert await stream.next() == connected(task)
        authz.says = says
        await stream.until_comments(3)
        authz.says = "good"
        await stream.until_comments(stream.comments + 2)
        message = await post(client, task)
        assert await stream.next() == full(message)

        authz.says = says
        assert await stream.rest() == [{"type": "error", "message": UNASKED}]


async def test_many_streams_of_one_credential_are_one_question(
    client: httpx2.AsyncClient, quick: Hub, url: str, task: Json, authz: Door
) -> None:
    async with follow(url, task["id"]) as first, follow(url, task["id"]) as second:
        for stream in (first, second):
            assert await stream.next() == connected(task)
        one, other = [reader.admission for reader in quick.readers]
        authz.times = 0
        assert await admission.ask([one, other, one]) == {one.credential: admission.Standing.GOOD}
        assert (one.credential, authz.times) == (other.credential, 1)
        another = admission.Admission(one.principal, {**one.headers, "x-api-key": "b"}, one.authenticate)
        assert len(await admission.ask([one, another])) == 2
