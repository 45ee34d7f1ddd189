"""The API as a process: `agentex serve`."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from agentex.database import rows
from agentex.dev.ports import free_port
from agentex.resources import Resources
from agentex.rpc.answers import BROKEN_OFF
from agentex.settings import Settings
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, register, rpc
from tests.support.processes import ManagedProcess, agentex


def serving(settings: Settings, port: int, folder: Path) -> ManagedProcess:
    """The API on a port of its own."""
    environment = {
        "AGENTEX_DATABASE_URL": settings.database_url,
        "AGENTEX_TEMPORAL_ADDRESS": settings.temporal_address,
        "AGENTEX_HOST": "127.0.0.1",
        "AGENTEX_PORT": str(port),
    }
    return ManagedProcess(agentex("serve"), environment=environment, log=folder / "serve.log")


async def until_up(server: ManagedProcess, port: int) -> None:
    await asyncio.to_thread(server.wait_until_ready, f"http://127.0.0.1:{port}/healthz")


@dataclass(frozen=True)
class InFlight:
    """A task/create that waits for its agent."""

    client: httpx2.AsyncClient
    agent: Json
    asked: asyncio.Task[Json]


@asynccontextmanager
async def in_flight(server: ManagedProcess, port: int, acp_server: AcpServer) -> AsyncGenerator[InFlight]:
    await until_up(server, port)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        agent = await register(client, acp_url=acp_server.url)
        acp_server.script("task/create", [Reply(hang="before")])
        asked = asyncio.create_task(rpc(client, agent, "task/create", {"name": "t1"}))
        await acp_server.is_hanging()
        yield InFlight(client, agent, asked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_a_request_in_flight_end(
    settings: Settings, acp_server: AcpServer, tmp_path: Path, number: signal.Signals
) -> None:
    port = free_port()
    with serving(settings, port, tmp_path) as server:
        async with in_flight(server, port, acp_server) as one:
            server.send(number)
            await asyncio.to_thread(_until_refused, port)
            acp_server.release()
            answer = await one.asked
        code = await asyncio.to_thread(server.wait)

    assert (answer["error"], answer["result"]["name"]) == (None, "t1")
    assert (code, "Traceback" in server.output()) == (0, False)


async def test_a_request_whose_client_goes_away_is_carried_out_to_its_end(
    settings: Settings, resources: Resources, acp_server: AcpServer, tmp_path: Path
) -> None:
    port, repeat = free_port(), {"x-stainless-retry-count": "1"}
    with serving(settings, port, tmp_path) as server:
        async with in_flight(server, port, acp_server) as one:
            one.asked.cancel()
            # It has seen the connection end when it has answered a later one.
            await one.client.get("/agents")
            acp_server.release()
            await _until_told(resources)
            answer = await rpc(one.client, one.agent, "task/create", {"name": "t1"}, headers=repeat)

    assert (answer["error"], dict(acp_server.counts), acp_server.dropped) == (None, {"task/create": 1}, 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_whose_client_goes_away_is_dropped_and_its_end_is_on_record(
    settings: Settings, resources: Resources, acp_server: AcpServer, tmp_path: Path, stream: bool
) -> None:
    port, body = free_port(), {"method": "message/send", "params": {"content": TEXT, "stream": stream}}
    acp_server.script("message/send", [Reply(hang="before")])
    with serving(settings, port, tmp_path) as server:
        await until_up(server, port)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            agent = await register(client, acp_type="sync", acp_url=acp_server.url)
            asked = asyncio.create_task(client.post(f"/agents/{agent['id']}/rpc", json=body))
            await acp_server.is_hanging()
            asked.cancel()
            await acp_server.has_dropped()
            while not await rows(resources.db, "SELECT 1 FROM message_sends WHERE ended_at IS NOT NULL"):
                pass

    [ended] = await rows(resources.db, "SELECT error FROM message_sends")
    assert (ended["error"], dict(acp_server.counts)) == (BROKEN_OFF, {"message/send": 1})
    assert "Traceback" not in server.output()


async def _until_told(resources: Resources) -> None:
    """Until what was answered is remembered as told."""
    async with resources.db.read() as session:
        while not await rows(session, "SELECT 1 FROM idempotency_keys WHERE answer ->> 'told' = 'true'"):
            pass


def _until_refused(port: int) -> None:
    """Until nobody listens on the port any more."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionError:
            return


async def test_a_port_in_use_is_one_clear_line_and_exit_code_1(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving(settings, port, tmp_path) as server:
            code = await asyncio.to_thread(server.wait)

    line = f"cannot listen on 127.0.0.1:{port} (AGENTEX_HOST, AGENTEX_PORT): Address already in use"
    assert (code, server.output()) == (1, line)


async def test_it_starts_and_answers_while_postgres_is_away(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    away = settings.model_copy(update={"database_url": f"postgresql://x@127.0.0.1:{free_port()}/x"})
    with serving(away, port, tmp_path) as server:
        await until_up(server, port)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            response = await client.get("/agents")

    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert ("Traceback" in server.output(), "server" in response.headers) == (False, False)
