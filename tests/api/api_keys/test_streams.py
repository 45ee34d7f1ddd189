"""A key that is revoked in one process ends the streams that it has opened in another."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from agentex.auth.rules import Role
from agentex.resources import Resources
from agentex.settings import Settings
from agentex.streams.hub import REFUSED
from tests.api.conftest import shared_app
from tests.api.ledger.stage import add_agent, add_task, fetch
from tests.support.keys import another_process, bearer, key_of
from tests.support.sse import Following, serving


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"stream_ping_seconds": 0.2})


@pytest.fixture
async def url(client: httpx2.AsyncClient, resources: Resources) -> AsyncIterator[str]:
    async with serving(shared_app()) as address:
        yield address
        assert resources.streams is not None
        await resources.streams.aclose()


@pytest.mark.parametrize("how", ["revoked", "left", "expired"])
async def test_a_key_that_is_over_ends_its_streams_and_no_other(
    url: str, resources: Resources, settings: Settings, admin: str, how: str
) -> None:
    import aiohttp

    task = await add_task(resources, await add_agent(resources))
    key = await key_of(resources, "user:vic", Role.VIEWER)
    path = f"{url}/tasks/{task.id}/stream"
    async with (
        aiohttp.ClientSession() as session,
        session.get(path, headers=bearer(key)) as theirs,
        session.get(path, headers=bearer(admin)) as others,
        another_process(settings) as second,
    ):
        stream, kept = Following(theirs), Following(others)
        await stream.until_comments(1)
        found = await fetch(resources, "SELECT id FROM api_keys WHERE member = 'user:vic'")
        match how:
            case "revoked":
                answer = await second.delete(f"/api_keys/{found[0]['id']}", headers=bearer(admin))
                assert answer.status_code == 200
            case "left":
                await second.delete("/members/user:vic", headers=bearer(admin))
            case _:
                await fetch(resources, "UPDATE api_keys SET expires_at = now() WHERE member = 'user:vic'")

        assert (await stream.rest())[-1] == {"type": "error", "message": REFUSED}
        await kept.until_comments(kept.comments + 2)
