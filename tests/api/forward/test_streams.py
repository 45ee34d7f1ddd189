"""Answers as they arrive, over sockets: their end, their limits, and what is held meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import httpx2
import pytest
import uvicorn
from aiohttp import web

from agentex.resources import Resources
from tests.api.conftest import shared_app
from tests.api.forward.conftest import AT
from tests.support.own_server import OwnServer


@pytest.fixture
async def api(client: httpx2.AsyncClient) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the app behind a socket; the app has this test's resources."""
    config = uvicorn.Config(
        shared_app(), port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    serving = asyncio.create_task(server.serve([listening]))
    base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with aiohttp.ClientSession(base_url, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session
    server.should_exit = True
    await serving
    listening.close()


async def streaming(own_server: OwnServer, request: web.Request, parts: list[bytes]) -> web.StreamResponse:
    """These parts, then nothing until it is released."""
    response = web.StreamResponse()
    await response.prepare(request)
    for part in parts:
        await response.write(part)
    await own_server.hang()
    return response


async def test_each_piece_goes_on_as_it_comes_and_no_connection_is_held_meanwhile(
    api: aiohttp.ClientSession, own_server: OwnServer, resources: Resources, with_key: dict[str, str]
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await streaming(own_server, request, [b"first"])

    own_server.answer = answer
    async with api.get(f"{AT}/stream", headers=with_key) as response:
        first = await response.content.readany()
        held = resources.db.engine.pool.status()
        own_server.released.set()
        rest = await response.content.read()

    assert (response.status, first, rest) == (200, b"first", b"")
    assert "Current Checked out connections: 0" in held


@pytest.mark.parametrize("begun", [True, False])
async def test_a_client_that_goes_away_drops_the_request_to_the_agent(
    api: aiohttp.ClientSession, own_server: OwnServer, with_key: dict[str, str], begun: bool
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if begun:
            return await streaming(own_server, request, [b"first"])
        await own_server.hang()
        return web.Response()

    own_server.answer = answer
    asked = asyncio.create_task(_read(api, with_key))
    await own_server.is_hanging.wait()
    asked.cancel()

    await asyncio.wait_for(own_server.has_dropped.wait(), 10)
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_an_agent_that_does_not_answer_in_time_is_a_504(
    api: aiohttp.ClientSession, own_server: OwnServer, resources: Resources, with_key: dict[str, str]
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        await own_server.hang()
        return web.Response()

    own_server.answer = answer
    resources.settings = resources.settings.model_copy(update={"forward_timeout_seconds": 0.3})
    async with api.get(f"{AT}/late", headers=with_key) as response:
        problem = await response.json()

    assert (response.status, problem["type"]) == (504, "urn:agentex:problem:outcome-unknown")
    assert problem["message"].endswith("GET of its own: no complete answer within 0.3 s")
    await asyncio.wait_for(own_server.has_dropped.wait(), 10)


async def test_an_answer_that_takes_too_long_is_cut_off(
    api: aiohttp.ClientSession, own_server: OwnServer, resources: Resources, with_key: dict[str, str]
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await streaming(own_server, request, [b"first"])

    own_server.answer = answer
    resources.settings = resources.settings.model_copy(update={"forward_timeout_seconds": 0.3})
    with pytest.raises(aiohttp.ClientPayloadError):
        await _read(api, with_key)
    await asyncio.wait_for(own_server.has_dropped.wait(), 10)


async def test_an_answer_that_breaks_off_at_the_agent_is_not_taken_for_whole(
    api: aiohttp.ClientSession, own_server: OwnServer, with_key: dict[str, str]
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        assert request.transport is not None
        request.transport.close()
        return response

    own_server.answer = answer
    with pytest.raises(aiohttp.ClientPayloadError):
        await _read(api, with_key)


@pytest.mark.parametrize("said", [True, False])
async def test_an_answer_over_the_limit_ends_there(
    api: aiohttp.ClientSession,
    own_server: OwnServer,
    resources: Resources,
    with_key: dict[str, str],
    said: bool,
) -> None:
    limit = resources.settings.agent_max_answer_bytes

    async def answer(request: web.Request) -> web.StreamResponse:
        if said:
            return web.Response(body=b"a" * (limit + 1))
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(limit // 65_536 + 1):
            await response.write(b"a" * 65_536)
        return response

    own_server.answer = answer
    if said:
        async with api.get(f"{AT}/large", headers=with_key) as response:
            problem = await response.json()
        assert (response.status, problem["type"]) == (502, "urn:agentex:problem:agent-protocol")
        assert problem["message"].endswith(f"GET of its own: the answer is larger than {limit} bytes")
    else:
        with pytest.raises(aiohttp.ClientPayloadError):
            await _read(api, with_key)


async def _read(api: aiohttp.ClientSession, headers: dict[str, str]) -> bytes:
    async with api.get(f"{AT}/a", headers=headers) as response:
        return await response.read()
