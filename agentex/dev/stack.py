"""The dev stack, `agentex dev`: Postgres, Temporal, migrations, API, worker and two demo agents.

What the environment names (AGENTEX_DATABASE_URL, AGENTEX_TEMPORAL_ADDRESS) is used, the rest is embedded.
Data and logs live in `.agentex/` of the current folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shlex
import signal
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentex.dev.errors import StackError
from agentex.dev.ports import free_port, port_is_free
from agentex.dev.postgres import EmbeddedPostgres
from agentex.dev.processes import Command, describe_exit, spawn
from agentex.dev.supervisor import Child, StopRequested, Supervisor
from agentex.dev.temporal import EmbeddedTemporal
from agentex.settings import Settings

_READY_SECONDS = 60
_STOP_SECONDS = 10
_POSTGRES_STOP_SECONDS = 20
ASYNC_AGENT, SYNC_AGENT = "demo-async", "demo-sync"
_AGENTS = {ASYNC_AGENT: "agentex.dev.agents.echo_async", SYNC_AGENT: "agentex.dev.agents.echo_sync"}


@dataclass(frozen=True)
class Place:
    """Where a local HTTP service listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`http://127.0.0.1:5003`; a server on all addresses is reached at the loopback one."""
        return f"http://{self.reachable_host}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """The host a client on this machine connects to."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 (compared only)

    def get(self, path: str) -> Any:
        """The JSON of a GET that was answered with 200, else None."""
        connection = http.client.HTTPConnection(self.reachable_host, self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()


def run(data_directory: Path) -> int:
    """Start everything, print where it is, and stay until Ctrl-C (0) or until a part ends (1).

    Raises pydantic.ValidationError for a wrong setting.
    """
    settings = Settings()
    supervisor = Supervisor()
    stack = Stack(data_directory.resolve(), settings, supervisor)
    with supervisor.signals():
        try:
            with _only_one(stack.data_directory):
                return stack.run()
        except StackError as error:
            _complain(error)
            return 1


def _complain(error: StackError) -> None:
    print(f"agentex dev: {error}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _only_one(data_directory: Path) -> Generator[None]:
    """Hold the folder's lock. The system frees it when the supervisor ends, in whatever way."""
    try:
        data_directory.mkdir(parents=True, exist_ok=True)
        lock = (data_directory / "lock").open("a+")
    except OSError as error:
        raise StackError(f"cannot write to {data_directory}: {error.strerror}") from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StackError(
                f"another stack (process {file.read().strip()}) runs on {data_directory}; "
                "stop it, or give another folder with --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class Stack:
    """One start of the dev stack."""

    def __init__(self, data_directory: Path, settings: Settings, supervisor: Supervisor) -> None:
        self.data_directory = data_directory
        self.logs = data_directory / "logs"
        self._supervisor = supervisor
        self._environment = dict(os.environ)
        self._environment.setdefault("ENABLE_AGENT_RUN_SCHEDULES", "true")
        self._environment["PYTHONUNBUFFERED"] = "1"
        self._api = Place(settings.host, settings.port)
        self._worker = Place("127.0.0.1", settings.worker_port)
        self._postgres: EmbeddedPostgres | None = None
        self._temporal: EmbeddedTemporal | None = None
        self._migration: Child | None = None
        self._services: list[Child] = []
        self._agents: dict[str, Place] = {}
        self._embedded: dict[str, Child] = {}

    def run(self) -> int:
        """Start, print, watch; whatever happens, stop what was started."""
        try:
            self._start()
            print(self.banner(), flush=True)
            self._supervisor.watch()
        except StopRequested:
            print("\nStopping (Ctrl-C again to kill)", flush=True)
        except StackError as error:
            _complain(error)
            return 1
        finally:
            self._stop()
        return 0

    def banner(self) -> str:
        """What the person at the terminal needs next."""
        agent_id = self._agent_id(ASYNC_AGENT)
        body = {"name": "hello-every-10s", "interval_seconds": 10, "initial_input": {"content": "Hello"}}
        text = json.dumps(body, separators=(",", ":"))
        schedules = f"{self._api.url}/agents/{agent_id}/schedules"
        create = f"curl -s {schedules} -H 'content-type: application/json' -d {shlex.quote(text)}"
        lines = [
            f"API      {self._api.url}   spec {self._api.url}/openapi.json   metrics {self._api.url}/metrics",
            f"Worker   {self._worker.url}/readyz   metrics {self._worker.url}/metrics",
            f"Agents   {', '.join(_AGENTS)}",
            f"Logs     {self.logs}",
            f"\nCreate a schedule of every 10 s:\n  {create}",
            f"\nList its runs:\n  curl -s '{self._api.url}/runs?agent_id={agent_id}'",
            "\nCtrl-C stops everything.",
        ]
        return "\n".join(lines)

    def _start(self) -> None:
        self._choose_ports()
        self._start_temporal()
        self._start_postgres()
        self._start_migration()
        self._start_agents()
        self._supervisor.wait_for(self._is_migrated, "the migration", _READY_SECONDS)
        if self._temporal:
            self._supervisor.wait_for(self._temporal.is_ready, "Temporal answering", _READY_SECONDS)
        self._start_service("api", "agentex.cli.main", "serve")
        self._start_service("worker", "agentex.cli.main", "worker")
        for name, place in (("api", self._api), ("worker", self._worker)):
            self._await_answer(place, "/readyz", f"{name} ready (log: {self.logs / name}.log)")
        self._supervisor.wait_for(
            lambda: all(self._agent_id(name) for name in _AGENTS),
            "the demo agents registering",
            _READY_SECONDS,
        )

    def _await_answer(self, place: Place, path: str, what: str) -> None:
        self._supervisor.wait_for(lambda: place.get(path) is not None, what, _READY_SECONDS)

    def _agent_id(self, name: str) -> str | None:
        """Its id once it has registered now; an earlier start's row in the database would not tell."""
        health = self._agents[name].get("/healthz")
        return health["agent_id"] if health else None

    def _choose_ports(self) -> None:
        """Refuse a port that is taken before anything runs; the worker's may move unless it was asked for."""
        if self._api.port == 0:
            self._api = Place(self._api.host, free_port(self._api.host))
            self._environment["AGENTEX_PORT"] = str(self._api.port)
        if not port_is_free(self._api.port, self._api.host):
            raise StackError(
                f"port {self._api.port} on {self._api.host} is in use; stop what listens there, "
                "or set AGENTEX_PORT to a free port"
            )
        if port_is_free(self._worker.port) and self._worker.port:
            return
        if self._environment.get("AGENTEX_WORKER_PORT", "0") != "0":
            raise StackError(f"port {self._worker.port} is in use; set AGENTEX_WORKER_PORT to a free port")
        self._worker = Place("127.0.0.1", free_port())
        self._environment["AGENTEX_WORKER_PORT"] = str(self._worker.port)

    def _start_temporal(self) -> None:
        if self._environment.get("AGENTEX_TEMPORAL_ADDRESS"):
            return
        self._temporal = EmbeddedTemporal(free_port(), log=self.logs / "temporal.log")
        self._temporal.spawn()
        self._adopt("temporal", self._temporal)
        self._environment["AGENTEX_TEMPORAL_ADDRESS"] = self._temporal.address

    def _start_postgres(self) -> None:
        if self._environment.get("AGENTEX_DATABASE_URL"):
            return
        log = self.logs / "postgres.log"
        self._postgres = EmbeddedPostgres(self.data_directory / "postgres", free_port(), log=log)
        if self._postgres.home.notice:
            print(self._postgres.home.notice, flush=True)
        self._postgres.spawn()
        self._adopt("postgres", self._postgres)
        self._environment["AGENTEX_DATABASE_URL"] = self._postgres.url

    def _adopt(self, name: str, server: EmbeddedPostgres | EmbeddedTemporal) -> None:
        self._embedded[name] = self._supervisor.adopt(name, server.process, server.log)
        self._supervisor.check()

    def _start_agents(self) -> None:
        for name, module in _AGENTS.items():
            self._agents[name] = place = Place("127.0.0.1", free_port())
            arguments = ["--port", str(place.port), "--server", self._api.url, "--name", name]
            self._start_service(name, module, *arguments)

    def _start_service(self, name: str, module: str, *arguments: str) -> None:
        child = self._supervisor.start(name, self._python(module, *arguments), self.logs / f"{name}.log")
        self._services.append(child)

    def _start_migration(self) -> None:
        log = self.logs / "migrate.log"
        self._migration = Child("migrate", spawn(self._python("agentex.dev.migrate"), log), log)

    def _is_migrated(self) -> bool:
        """Raises StackError when the migration failed."""
        if self._migration is None or (code := self._migration.process.poll()) is None:
            return False
        if code != 0:
            raise StackError(f"the migration ended with {describe_exit(code)}; see {self._migration.log}")
        return True

    def _python(self, module: str, *arguments: str) -> Command:
        return Command([sys.executable, "-m", module, *arguments], environment=self._environment)

    def _stop(self) -> None:
        """Services first, so that they can still write; then Temporal, then Postgres."""
        finish = self._supervisor.finish
        if self._migration:
            finish([self._migration], signal.SIGINT, _STOP_SECONDS)
        finish(self._services, signal.SIGINT, _STOP_SECONDS)
        if self._temporal:
            self._temporal.stop()
        if self._postgres and self._supervisor.in_a_hurry:
            self._postgres.stop_at_once()
        elif postgres := self._embedded.get("postgres"):
            finish([postgres], signal.SIGINT, _POSTGRES_STOP_SECONDS)
