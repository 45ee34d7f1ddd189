"""Real processes under test: started, watched, hurt and certainly ended.

with ManagedProcess(agentex("worker"), environment=environment, log=directory / "worker.log") as worker:
    worker.wait_until_ready(f"http://127.0.0.1:{port}/readyz")
    worker.kill()
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from agentex.dev.processes import Command, kill_group, log_since, log_size, spawn, stop, wait_until


def agentex(command: str, *options: str) -> list[str]:
    """The command line of `agentex serve`, `agentex worker` and so on, in this interpreter."""
    return [sys.executable, "-m", "agentex.cli.main", command, *options]


def python_module(module: str, *options: str) -> list[str]:
    """The command line of `python -m module`."""
    return [sys.executable, "-m", module, *options]


def answers(url: str) -> bool:
    """Whether a GET of the URL is answered with 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class ManagedProcess:
    """One process in a session of its own; killed when the test process ends (Linux) or the block is left.

    `environment` is added to this process's; a value of None takes a variable away.
    """

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str | None], log: Path) -> None:
        self.log = log
        merged = os.environ | environment
        kept = {key: value for key, value in merged.items() if value is not None}
        self._command = Command(arguments, environment=kept, death_signal=signal.SIGKILL)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    def start(self) -> Self:
        """Start it, for the first time or again; returns at once."""
        self._log_offset = log_size(self.log)
        self._process = spawn(self._command, self.log)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running or ended process."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; -9 after SIGKILL."""
        return self.process.poll()

    def output(self, lines: int = 50) -> str:
        """The last lines it has written since it was started."""
        return log_since(self.log, self._log_offset, lines)

    def wait_until_ready(self, url: str, seconds: float = 60) -> None:
        """Until the URL is answered with 200. Fails with its last lines when it ends before."""

        def ready() -> bool:
            assert self.returncode is None, f"ended with {self.returncode}:\n{self.output()}"
            return answers(url)

        wait_until(ready, f"an answer of {url} (log: {self.log})", seconds)

    def wait(self, seconds: float = 30) -> int:
        """Until it has ended; returns its exit code. Raises subprocess.TimeoutExpired."""
        return self.process.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def terminate(self, seconds: float = 30) -> int:
        """SIGTERM, and its exit code."""
        self.send(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, as a fault; nothing is left of it on return."""
        kill_group(self.process)

    def freeze(self) -> None:
        """SIGSTOP: alive and silent."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def close(self) -> None:
        """End it if it runs: SIGINT, and SIGKILL after 10 s."""
        if self._process is not None and self.returncode is None:
            self.thaw()
            stop(self._process, [(signal.SIGINT, 10)])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
