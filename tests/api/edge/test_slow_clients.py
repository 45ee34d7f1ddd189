"""Clients that hold connections open without a request: cut off. Those that wait for an answer: not."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from ipaddress import ip_network

import httpx2
import pytest
from prometheus_client import REGISTRY

from agentex.resources import Resources
from tests.api.edge.conftest import Served
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, register
from tests.support.raw_http import RawClient
from tests.support.sse import follow, until

HEAD = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"
POST = b"POST /agents/register HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
# Far above what a loaded machine needs for a request, far below a test's limit.
QUICK = {"request_head_timeout_seconds": 0.5, "request_body_timeout_seconds": 0.5}


def cut(reason: str) -> float:
    return REGISTRY.get_sample_value("agentex_connections_cut_total", {"reason": reason}) or 0


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /heal", HEAD, HEAD + b"x-slow: "])
async def test_a_head_that_stops_is_cut_off(served: Served, begun: bytes) -> None:
    before = cut("slow_head")
    async with served(**QUICK) as url, RawClient(url) as client:
        await client.send(begun)
        assert await client.rest() == b""
    assert cut("slow_head") == before + 1


@pytest.mark.parametrize("piece", [b"x-slow: 1\r\n", b"x"], ids=["a header", "one without end"])
async def test_a_head_that_drips_is_cut_off(served: Served, piece: bytes) -> None:
    async with served(**QUICK) as url, RawClient(url) as client:
        await client.send(HEAD)
        assert await client.drip(piece, 0.02) == b""


async def test_the_next_request_on_a_connection_has_to_come_as_well(served: Served) -> None:
    async with served(**QUICK) as url, RawClient(url) as client:
        await client.send(HEAD + b"\r\n")
        assert await client.answer() == (200, b'{"status":"ok"}')
        await client.send(HEAD)
        assert await client.rest() == b""


async def test_line_ends_keep_no_connection_open(served: Served) -> None:
    async with served(**QUICK) as url, RawClient(url) as client:
        await client.send(HEAD + b"\r\n")
        await client.answer()
        assert await client.drip(b"\r\n", 0.05) == b""


@pytest.mark.parametrize(
    "rest",
    [b"content-length: 1000\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"],
    ids=["length", "chunked"],
)
async def test_a_body_that_stops_is_408(served: Served, rest: bytes) -> None:
    async with served(**QUICK) as url, RawClient(url) as client:
        await client.send(POST + rest)
        head, body = await client.head(), await client.rest()

    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nconnection: close\r\n" in head
    assert b"x-should-retry: false" not in head
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == (408, 408)
    assert problem["message"] == (
        "the request's body did not arrive within 0.5 s (AGENTEX_REQUEST_BODY_TIMEOUT_SECONDS)"
    )


async def test_a_body_that_drips_is_408(served: Served) -> None:
    async with served(**QUICK) as url, RawClient(url) as client:
        await client.send(POST + b"content-length: 100000\r\n\r\n")
        assert (await client.drip(b" ", 0.02)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_nobody_waits_for_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentex.web.connections.BODY_GRACE_SECONDS", 0)
    before = cut("slow_body")
    async with served(**QUICK) as url, RawClient(url) as client:
        # Answered without a look at its body, of which some is still to come.
        await client.send(b"POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{")
        assert (await client.answer())[0] == 404
        assert await client.drip(b" ", 0.02) == b""
    assert cut("slow_body") == before + 1


@pytest.mark.parametrize(
    "header", [b"x-a: " + b"a" * 1_000, b"x-a: 1", b"x" * 1_000], ids=["large", "small", "one"]
)
async def test_a_head_without_end_is_cut_off(served: Served, header: bytes) -> None:
    before = cut("head_too_large")
    end = b"" if header.startswith(b"xx") else b"\r\n"
    async with served() as url, RawClient(url) as client:
        await client.send(HEAD)
        await client.send_on((header + end) * 100)
    assert cut("head_too_large") == before + 1


async def test_trailers_without_end_are_cut_off(served: Served) -> None:
    before = cut("head_too_large")
    async with served() as url, RawClient(url) as client:
        await client.send(POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        await client.send_on((b"x-a: " + b"a" * 1_000 + b"\r\n") * 100)
    assert cut("head_too_large") == before + 1


async def test_trailers_are_no_headers(served: Served) -> None:
    async with served() as url, RawClient(url) as client:
        await client.send(
            POST.replace(b"content-type: application/json\r\n", b"") + b"transfer-encoding: chunked\r\n\r\n"
        )
        await client.send(b"2\r\n{}\r\n0\r\ncontent-type: application/json\r\n\r\n")
        status, body = await client.answer()
    assert (status, json.loads(body)["message"]) == (
        422,
        "body is not JSON: send it with content-type application/json",
    )


async def test_who_waits_for_an_answer_is_not_slow(
    served: Served, resources: Resources, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])
    async with served(**QUICK) as url, httpx2.AsyncClient(base_url=url) as client:
        agent = await register(client, acp_type="sync", acp_url=acp_server.url)
        body = {"method": "message/send", "params": {"content": TEXT}}
        asked = asyncio.create_task(client.post(f"/agents/{agent['id']}/rpc", json=body))
        await acp_server.is_hanging()
        # Three times what a head or a body may take.
        await asyncio.sleep(1.5)
        acp_server.release()
        assert (await asked).json()["error"] is None


async def test_a_stream_stays_open(served: Served, resources: Resources) -> None:
    async with served(**QUICK) as url, httpx2.AsyncClient(base_url=url) as client:
        agent = await register(client, acp_url="http://127.0.0.1:9")
        resources.hooks.run_opened = None
        body = {"method": "task/create", "params": {"name": "t"}}
        task_id = (await client.post(f"/agents/{agent['id']}/rpc", json=body)).json()
        found = (await client.get("/tasks/name/t")).json()
        assert "id" in found, task_id
        async with follow(url, found["id"]) as stream:
            await stream.next()
            await asyncio.sleep(1.5)
            await client.post("/messages", json={"task_id": found["id"], "content": TEXT})
            assert (await stream.next())["type"] != "error"


async def test_one_connection_too_many_is_refused_and_its_place_is_free_again(served: Served) -> None:
    before = cut("too_many")
    async with served(max_connections=2) as url:
        async with RawClient(url) as one, RawClient(url) as two:
            for client in (one, two):
                await client.send(HEAD + b"\r\n")
                assert (await client.answer())[0] == 200
            async with RawClient(url) as three:
                assert (await three.rest()).startswith(b"HTTP/1.1 503 ")
            assert cut("too_many") == before + 1

        async def is_free() -> bool:
            async with RawClient(url) as again:
                await again.send(HEAD + b"connection: close\r\n\r\n")
                return (await again.rest()).startswith(b"HTTP/1.1 200 ")

        await until(is_free)


async def test_one_address_does_not_take_all(served: Served) -> None:
    async with served(max_connections_per_address=2) as url, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(RawClient(url))
        third = await stack.enter_async_context(RawClient(url))
        assert (await third.rest()).startswith(b"HTTP/1.1 503 ")


async def test_behind_a_trusted_proxy_there_are_many(served: Served) -> None:
    trusted = (ip_network("127.0.0.0/8"),)
    async with (
        served(max_connections_per_address=2, trusted_proxies=trusted) as url,
        AsyncExitStack() as stack,
    ):
        for _ in range(5):
            client = await stack.enter_async_context(RawClient(url))
            await client.send(HEAD + b"\r\n")
            assert (await client.answer())[0] == 200


async def test_a_request_in_pieces_that_all_come_is_answered(served: Served) -> None:
    async with served(request_head_timeout_seconds=5) as url, RawClient(url) as client:
        request = HEAD + b"\r\n"
        for _ in range(3):
            for at in range(0, len(request), 7):
                await client.send(request[at : at + 7])
                await asyncio.sleep(0)
            assert await client.answer() == (200, b'{"status":"ok"}')


async def test_an_upgrade_to_websockets_is_not_made(served: Served) -> None:
    async with served() as url, RawClient(url) as client:
        await client.send(
            HEAD + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await client.answer())[0] == 200
