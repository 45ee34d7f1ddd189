"""The API as a process: `agentex serve`."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import httpx2
import pytest

from agentex.dev.ports import free_port
from agentex.settings import Settings
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import register, rpc
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_a_request_in_flight_end(
    settings: Settings, acp_server: AcpServer, tmp_path: Path, number: signal.Signals
) -> None:
    port = free_port()
    base_url = f"http://127.0.0.1:{port}"
    with serving(settings, port, tmp_path) as server:
        await until_up(server, port)
        async with httpx2.AsyncClient(base_url=base_url) as client:
            agent = await register(client, acp_url=acp_server.url)
            acp_server.script("task/create", [Reply(hang="before")])
            asked = asyncio.create_task(rpc(client, agent, "task/create", {"name": "t1"}))
            await acp_server.is_hanging()
            server.send(number)
            await asyncio.to_thread(_until_refused, port)
            acp_server.release()
            answer = await asked
        code = await asyncio.to_thread(server.wait)

    assert (answer["error"], answer["result"]["name"]) == (None, "t1")
    assert (code, "Traceback" in server.output()) == (0, False)


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
