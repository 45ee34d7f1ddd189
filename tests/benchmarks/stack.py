"""The stack that is measured: embedded Postgres and Temporal, API and worker as processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentex.dev.ports import free_port
from agentex.dev.postgres import EmbeddedPostgres
from agentex.dev.temporal import EmbeddedTemporal
from tests.support.contract_stack import START_SECONDS, SdkAgent, acp_arguments, acp_variables, sdk_process
from tests.support.processes import ManagedProcess, agentex, python_module


@dataclass(frozen=True)
class Stack:
    """Where the parts of a running stack are."""

    api: str
    worker: str
    database_url: str
    # The process ids of its parts, by name.
    pids: dict[str, int]


@dataclass(frozen=True)
class AgentProcess:
    """A scriptable agent in a process of its own, and the file it writes each request to."""

    url: str
    record: Path


@contextmanager
def open_folder() -> Generator[Path]:
    """A folder that Postgres's own user can enter, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="agentex-bench-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def running_stack(directory: Path, **settings: str) -> Generator[Stack]:
    """Start everything as `agentex dev` does (Postgres durable, Temporal in memory), stop it afterwards.

    Settings are given without their prefix.
    """
    postgres = EmbeddedPostgres(directory / "postgres", free_port())
    temporal = EmbeddedTemporal(free_port(), log=directory / "temporal.log")
    api, worker = free_port(), free_port()
    url = postgres.start()
    try:
        address = temporal.start()
        environment = {
            "AGENTEX_DATABASE_URL": url,
            "AGENTEX_TEMPORAL_ADDRESS": address,
            "AGENTEX_PORT": str(api),
            "AGENTEX_WORKER_PORT": str(worker),
            "ENABLE_AGENT_RUN_SCHEDULES": "true",
            **{f"AGENTEX_{name.upper()}": value for name, value in settings.items()},
        }
        subprocess.run(agentex("migrate"), env=os.environ | environment, check=True)
        served = ManagedProcess(agentex("serve"), environment=environment, log=directory / "api.log")
        worked = ManagedProcess(agentex("worker"), environment=environment, log=directory / "worker.log")
        with served, worked:
            served.wait_until_ready(f"http://127.0.0.1:{api}/readyz")
            worked.wait_until_ready(f"http://127.0.0.1:{worker}/readyz")
            pids = {
                "Postgres": postgres.process.pid,
                "Temporal": temporal.process.pid,
                "API": served.pid,
                "worker": worked.pid,
            }
            yield Stack(f"http://127.0.0.1:{api}", f"http://127.0.0.1:{worker}", url, pids)
    finally:
        temporal.stop()
        postgres.stop()


FAST_AGENT = "tests.support.acp_server"
USUAL_AGENT = "tests.benchmarks.agent"


@contextmanager
def running_agent(directory: Path, name: str, module: str = FAST_AGENT) -> Generator[AgentProcess]:
    """Start an agent that answers at once."""
    port, record = free_port(), directory / f"{name}.jsonl"
    command = python_module(module, "--port", str(port), "--record", str(record))
    with ManagedProcess(command, environment={}, log=directory / f"{name}.log") as process:
        process.wait_until_ready(f"http://127.0.0.1:{port}/healthz")
        yield AgentProcess(f"http://127.0.0.1:{port}", record)


SDK_AGENT = SdkAgent("bench-sdk", "sync", "sync_plain")


@contextmanager
def running_sdk_agent(directory: Path, stack: Stack, python: Path) -> Generator[str]:
    """Start an agent that is made with the agents' SDK; where it listens, once it has registered itself."""
    port = free_port()
    # Without a line in a log for each request.
    arguments = [*acp_arguments(SDK_AGENT, port), "--log-level", "warning"]
    variables = acp_variables(SDK_AGENT, port, stack.api)
    with sdk_process(python, arguments, variables, directory / "sdk.log") as process:
        process.wait_until_ready(f"http://127.0.0.1:{port}/healthz", START_SECONDS)
        yield f"http://127.0.0.1:{port}"
        # The SDK takes more than 10 s to say goodbye.
        process.kill()
