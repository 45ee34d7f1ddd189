"""A dev stack as its user has it: one process in the foreground, and what it started."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from agentex.dev.ports import free_port
from agentex.dev.processes import wait_until
from agentex.dev.redis import redis_binary
from tests.support.processes import ManagedProcess, agentex

_START_SECONDS = 90


def is_running(process: psutil.Process) -> bool:
    """Whether it lives; a zombie that nobody reaps in this container does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class DevStack:
    """`agentex dev`, or a program in its place, on free ports; all processes below it are written down."""

    def __init__(
        self,
        data_directory: Path,
        log: Path,
        *,
        options: Sequence[str] = (),
        program: Sequence[str] | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        merged: dict[str, str | None] = {
            "AGENTEX_PORT": str(free_port()),
            "AGENTEX_WORKER_PORT": "0",
            "AGENTEX_DATABASE_URL": None,
            "AGENTEX_TEMPORAL_ADDRESS": None,
            "AGENTEX_REDIS_URL": None,
            "ENABLE_AGENT_RUN_SCHEDULES": None,
            "AGENTEX_AGENT_HOST_REWRITES": None,
            "AGENTEX_AGENT_NETWORKS": None,
            **(environment or {}),
        }
        command = [*(program or agentex("dev")), "--data-dir", str(data_directory), *options]
        self.data_directory = data_directory
        self.supervisor = ManagedProcess(command, environment=merged, log=log)
        self.url = f"http://127.0.0.1:{merged['AGENTEX_PORT']}"
        self._seen: list[psutil.Process] = []

    def start(self, seconds: float = _START_SECONDS) -> None:
        """Start it; returns when it has printed all it has to say."""
        self.supervisor.start()
        wait_until(self._is_up, f"the stack coming up (log: {self.supervisor.log})", seconds)

    def children(self) -> dict[str, psutil.Process]:
        """Its processes by the name of their log; those that it has now."""
        self._seen = psutil.Process(self.supervisor.pid).children(recursive=True)
        names: dict[str, psutil.Process] = {}
        for process in psutil.Process(self.supervisor.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
                words = " ".join(process.cmdline())
                names |= {name: process for name, mark in _MARKS.items() if mark in words}
        return names

    def log_of(self, name: str) -> Path:
        """Where a part writes."""
        return self.data_directory.resolve() / "logs" / f"{name}.log"

    def refused(self) -> str:
        """Start it and wait for it to give up; returns what it said."""
        self.supervisor.start()
        assert self.supervisor.wait(_START_SECONDS) == 1, self.supervisor.output()
        return self.supervisor.output()

    def left_over(self) -> list[psutil.Process]:
        """Which of the processes seen last still live."""
        return [process for process in self._seen if is_running(process)]

    def interrupt(self) -> int:
        """Ctrl-C, as the terminal sends it; returns the exit code."""
        self.supervisor.send(signal.SIGINT)
        return self.supervisor.wait(60)

    def printed_command(self, title: str) -> list[str]:
        """The command that was printed below a line, as a shell would split it."""
        found = re.findall(rf"^{title}:\n  (.*)$", self.supervisor.output(), re.MULTILINE)
        return shlex.split(found[-1])

    def _is_up(self) -> bool:
        output = self.supervisor.output()
        assert self.supervisor.returncode is None, output
        return "Ctrl-C stops everything." in output


_MARKS = {
    "api": "agentex.cli.main serve",
    "worker": "agentex.cli.main worker",
    "demo-async": "agents.echo_async",
    "demo-sync": "agents.echo_sync",
    "temporal": "server start-dev",
    "postgres": "bin/postgres",
    "redis": "redis-server",
}
# Not every machine has one.
REDIS = {"redis"} if redis_binary() is not None else set[str]()


def run_printed(command: list[str]) -> str:
    """Run a printed command and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
