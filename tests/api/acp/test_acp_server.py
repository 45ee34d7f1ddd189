"""The scriptable agent as its own process: what it records and how it is told what to do."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from agentex.acp.client import AcpClient
from agentex.acp.messages import JsonObject
from agentex.errors import AgentError
from tests.support.acp_calls import PARAMS, acp_call
from tests.support.acp_server import read_record


@dataclass(frozen=True)
class AgentProcess:
    url: str
    record: Path


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    record = tmp_path / "requests.jsonl"
    command = [sys.executable, "-m", "tests.support.acp_server", "--record", str(record)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield AgentProcess(process.stdout.readline().strip(), record)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


async def post(url: str, body: JsonObject) -> None:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        assert response.status == 200


async def test_process_answers_by_script_and_records_each_request(agent: AgentProcess, client: AcpClient):
    script: JsonObject = {
        "method": "event/send",
        "task_name": "scheduled-run:s1:*",
        "replies": [{"status": 500}],
    }
    await post(f"{agent.url}/script", script | {"task_name": "scheduled-run:s2:*"})
    await post(f"{agent.url}/script", script)
    with pytest.raises(AgentError):
        await client.call(acp_call(agent.url))
    assert await client.call(acp_call(agent.url)) == {"status": "processing"}
    recorded = read_record(agent.record)
    assert [(request.method, request.id, request.params) for request in recorded] == [
        ("event/send", "r-1", PARAMS),
        ("event/send", "r-1", PARAMS),
    ]
    assert recorded[0].headers["idempotency-key"] == "k-1"
    assert recorded[0].monotonic < recorded[1].monotonic


async def test_process_tells_counts_and_health(agent: AgentProcess, client: AcpClient):
    await client.call(acp_call(agent.url))
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{agent.url}/requests") as response:
            counts = await response.json()
        async with session.get(f"{agent.url}/healthz") as response:
            health = await response.json()
    assert counts == {
        "total": 1,
        "methods": {"event/send": 1},
        "hanging": 0,
        "dropped": 0,
        "connections": 1,
    }
    assert health == {"status": "healthy", "agent_id": None}
