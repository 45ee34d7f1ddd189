"""The stack of the contract tests: as users run it, with agents beside it that are made with the SDK."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from agentex.dev.ports import free_port
from tests.support.contract_env import ROOT, environment
from tests.support.fault_stack import Stack
from tests.support.processes import ManagedProcess

AGENTS = ROOT / "tests/contract/agents"
# Eight agents import the SDK at the same time: 6 s of a core each.
START_SECONDS = 240


@dataclass(frozen=True)
class SdkAgent:
    """An agent of tests/contract/agents; its server is the module's `acp`, run by uvicorn."""

    name: str
    acp_type: Literal["sync", "async"]
    module: str
    # A program that runs beside its server.
    worker: str | None = None


SDK_AGENTS = (
    SdkAgent("sync-plain", "sync", "sync_plain"),
    SdkAgent("sync-streaming", "sync", "sync_streaming"),
    SdkAgent("async-base", "async", "async_base"),
    SdkAgent("async-streaming", "async", "async_streaming"),
    SdkAgent("multi-turn", "async", "multi_turn"),
    SdkAgent("traced", "async", "traced"),
    SdkAgent("batch-events", "async", "batch_events"),
    SdkAgent("langgraph-memory", "async", "langgraph_memory"),
    SdkAgent("temporal", "async", "temporal_acp", worker="temporal_worker.py"),
)


def acp_variables(agent: SdkAgent, port: int, base_url: str) -> dict[str, str]:
    """What an operator gives an agent: its own address and name, and where the server is."""
    return {
        "AGENT_NAME": agent.name,
        "AGENT_DESCRIPTION": f"{agent.name} of the contract tests",
        "ACP_URL": "http://127.0.0.1",
        "ACP_PORT": str(port),
        "ACP_TYPE": agent.acp_type,
        "AGENTEX_BASE_URL": base_url,
    }


def acp_arguments(agent: SdkAgent, port: int) -> list[str]:
    """Its server, behind the name of the interpreter."""
    # -P: the project's own agentex stands in the folder that this process works in.
    server = ["-P", "-m", "uvicorn", f"{agent.module}:acp", "--app-dir", str(AGENTS)]
    return [*server, "--host", "127.0.0.1", "--port", str(port)]


def sdk_process(python: Path, arguments: list[str], variables: dict[str, str], log: Path) -> ManagedProcess:
    """A program in the SDK's environment, not started yet."""
    inherited = environment()
    hidden = {name: None for name in os.environ if name not in inherited}
    return ManagedProcess(
        [str(python), *arguments], environment={**hidden, **inherited, **variables}, log=log
    )


class ContractStack(Stack):
    """API, worker and agents; nothing in it is hurt."""

    def __init__(self, directory: Path, database_url: str, temporal_address: str, **settings: object) -> None:
        super().__init__(directory, database_url, temporal_address, **settings)
        self.sdk_processes: list[ManagedProcess] = []

    async def start_sdk_agents(self, python: Path, redis_url: str | None = None) -> None:
        """Start all of SDK_AGENTS at once; returns when each has registered itself and serves."""
        await asyncio.gather(*[self._start_sdk_agent(agent, python, redis_url) for agent in SDK_AGENTS])

    async def _start_sdk_agent(self, agent: SdkAgent, python: Path, redis_url: str | None) -> None:
        port, health_port = free_port(), free_port()
        variables = acp_variables(agent, port, self.url)
        if redis_url is not None:
            variables["REDIS_URL"] = redis_url
        if agent.worker is not None:
            variables |= {
                "TEMPORAL_ADDRESS": self.temporal_address,
                "WORKFLOW_NAME": "conversation",
                "WORKFLOW_TASK_QUEUE": f"{self.prefix}-{agent.name}",
                "HEALTH_CHECK_PORT": str(health_port),
            }
        server = acp_arguments(agent, port)
        waits = [self._serve(python, server, variables, f"http://127.0.0.1:{port}/healthz")]
        if agent.worker is not None:
            program = [str(AGENTS / agent.worker)]
            waits.append(self._serve(python, program, variables, f"http://127.0.0.1:{health_port}/readyz"))
        await asyncio.gather(*waits)

    async def _serve(self, python: Path, arguments: list[str], variables: dict[str, str], url: str) -> None:
        log = self.directory / f"sdk-{len(self.sdk_processes)}.log"
        process = sdk_process(python, arguments, variables, log)
        self.sdk_processes.append(process)
        process.start()
        await asyncio.to_thread(process.wait_until_ready, url, START_SECONDS)

    async def fire_once(self, agent_id: str, due: datetime, **body: object) -> dict[str, Any]:
        """A schedule whose only instant is `due`, an even second."""
        self._names += 1
        window = {"start_at": due.isoformat(), "end_at": (due + timedelta(seconds=1)).isoformat()}
        given = {"name": f"schedule-{self._names}", "interval_seconds": 2, **window, **body}
        return await self.ok("POST", f"/agents/{agent_id}/schedules", given)

    async def run_of(self, schedule_id: str) -> dict[str, Any] | None:
        """The only run of a schedule, as the ledger tells it; None before it is opened."""
        found = (await self.ok("GET", f"/runs?schedule_id={schedule_id}"))["runs"]
        assert len(found) <= 1, found
        return found[0] if found else None

    async def said(self, task_id: str) -> list[dict[str, Any]]:
        """The contents of a task's messages, oldest first."""
        newest_first = await self.ok("GET", f"/messages?task_id={task_id}")
        return [message["content"] for message in reversed(newest_first)]

    async def close(self, *, tidy_temporal: bool = True) -> None:
        """End every process; agents at once, for the SDK takes more than 10 s to say goodbye."""
        for process in self.sdk_processes:
            if process.returncode is None:
                process.kill()
        await super().close(tidy_temporal=tidy_temporal)
