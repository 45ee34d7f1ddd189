"""The dev stack, `agentex dev`: Postgres, Temporal, Redis, migrations, API, worker and two demo agents.

What the environment names (AGENTEX_DATABASE_URL, AGENTEX_TEMPORAL_ADDRESS, AGENTEX_REDIS_URL) is used, the
rest is embedded; Redis only where there is one to be had, since all but token deltas works without.
Data and logs live in `.agentex/` of the current folder.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from agentex.dev.errors import StackError
from agentex.dev.folder import kept_port, only_stack, reset, secret_key
from agentex.dev.place import Place
from agentex.dev.ports import accepts, free_port, port_is_free, why_taken
from agentex.dev.postgres import EmbeddedPostgres
from agentex.dev.processes import Command, full_disk, spawn
from agentex.dev.redis import EmbeddedRedis
from agentex.dev.supervisor import Child, Ending, StopRequested, Supervisor
from agentex.dev.temporal import EmbeddedTemporal
from agentex.dev.terminal import complain, say
from agentex.dev.warden import Warden
from agentex.settings import LOCAL_NETWORKS, Settings

_READY_SECONDS = 60
# A Postgres of the caller's own should be up before, or come up together with the stack.
_OWN_SERVER_SECONDS = 10
# Services end first, so that they can still write; then Temporal and Redis, which have nothing to save, then
# Postgres.
_SERVICE_ENDING = Ending(signal.SIGINT, 10, rank=0)
_TEMPORAL_ENDING = Ending(signal.SIGKILL, 5, rank=1)
_REDIS_ENDING = Ending(signal.SIGTERM, 5, rank=1)
_POSTGRES_ENDING = Ending(signal.SIGINT, 20, rank=2, hurried=signal.SIGQUIT)
ASYNC_AGENT, SYNC_AGENT = "demo-async", "demo-sync"
_AGENTS = {ASYNC_AGENT: "agentex.dev.agents.echo_async", SYNC_AGENT: "agentex.dev.agents.echo_sync"}
_PARTS = ("temporal", "postgres", "redis", "migrate", "api", "worker", *_AGENTS)


@dataclass(frozen=True)
class Options:
    """The command line of `agentex dev`."""

    data_directory: Path
    agents: bool = True
    reset: bool = False


def run(options: Options) -> int:
    """Start everything, print where it is, and stay until Ctrl-C (0) or until the start fails (1).

    Raises pydantic.ValidationError for a wrong setting.
    """
    settings = Settings()
    directory = options.data_directory.resolve()
    try:
        with only_stack(directory) as lock:
            supervisor = Supervisor(Warden(keep_descriptors=[lock]))
            with supervisor.signals():
                return Stack(directory, options, settings, supervisor).run()
    except StackError as error:
        complain(str(error))
    except OSError as error:
        full = full_disk(directory) if error.errno == errno.ENOSPC else None
        complain(f"cannot write to {error.filename or directory}: {full or error.strerror or error}")
    return 1


def stack_environment(given: Mapping[str, str]) -> dict[str, str]:
    """What all parts get: the environment, and what is different on a machine of one's own."""
    return {
        "ENABLE_AGENT_RUN_SCHEDULES": "true",
        # In a container as well: what this stack serves runs beside it.
        "AGENTEX_AGENT_HOST_REWRITES": "host.docker.internal=127.0.0.1",
        # With every provider: the demo agents run on this machine.
        "AGENTEX_AGENT_NETWORKS": LOCAL_NETWORKS,
        **given,
        "PYTHONUNBUFFERED": "1",
    }


class Stack:
    """One start of the dev stack."""

    def __init__(
        self, data_directory: Path, options: Options, settings: Settings, supervisor: Supervisor
    ) -> None:
        self.data_directory = data_directory
        self.logs = data_directory / "logs"
        self._options = options
        self._supervisor = supervisor
        self._environment = stack_environment(os.environ)
        self._api = Place(settings.host, settings.port)
        self._worker = Place("127.0.0.1", settings.worker_port)
        self._postgres: EmbeddedPostgres | None = None
        self._temporal: EmbeddedTemporal | None = None
        self._redis: EmbeddedRedis | None = None
        self._agents: dict[str, Place] = {}
        self._began = time.monotonic()

    def run(self) -> int:
        """Start, print, watch; whatever happens, stop what was started.

        Raises StackError, or OSError of the disk, when the start fails.
        """
        try:
            self._start()
            say(self.banner())
            self._supervisor.watch()
        except StopRequested:
            say("\nStopping (Ctrl-C again to kill)")
        finally:
            self._supervisor.stop()
        return 0

    def banner(self) -> str:
        """What the person at the terminal needs next."""
        agent_id = self._agent_id(ASYNC_AGENT) if self._agents else None
        body = {"name": "hello-every-10s", "interval_seconds": 10, "initial_input": {"content": "Hello"}}
        text = json.dumps(body, separators=(",", ":"))
        schedules = f"{self._api.url}/agents/{agent_id or 'AGENT_ID'}/schedules"
        create = f"curl -s {schedules} -H 'content-type: application/json' -d {shlex.quote(text)}"
        runs = f"{self._api.url}/runs" + (f"?agent_id={agent_id}" if agent_id else "")
        lines = [
            f"API      {self._api.url}   spec {self._api.url}/openapi.json   metrics {self._api.url}/metrics",
            f"Worker   {self._worker.url}/readyz   metrics {self._worker.url}/metrics",
            f"Agents   {', '.join(self._agents) or f'none of ours; {self._api.url}/agents lists yours'}",
            f"Temporal for Temporal agents: TEMPORAL_ADDRESS={self._environment['AGENTEX_TEMPORAL_ADDRESS']}",
            f"Redis    {self._redis_line()}",
            f"Logs     {self.logs}",
            f"\nCreate a schedule of every 10 s:\n  {create}",
            f"\nList its runs:\n  curl -s '{runs}'",
            "\nCtrl-C stops everything.",
        ]
        return "\n".join(lines)

    def _redis_line(self) -> str:
        """What agents that stream need in their environment."""
        url = self._redis.url if self._redis else self._environment.get("AGENTEX_REDIS_URL")
        if url is None:
            return "none (install redis-server): whole messages come, token by token does not"
        return f"for agents that stream: REDIS_URL={_without_password(url)}"

    def _start(self) -> None:
        self._choose_ports()
        if self._options.reset:
            reset(self.data_directory, [self._log(name) for name in _PARTS])
        self.logs.mkdir(exist_ok=True)
        say(f"Starting in {self.data_directory}, a log for each part in {self.logs}")
        if not self._environment.get("AGENTEX_SECRET_KEY", "").strip():
            self._environment["AGENTEX_SECRET_KEY"] = secret_key(self.data_directory)
        self._start_temporal()
        self._start_postgres()
        self._start_redis()
        migration = self._start_migration()
        if self._options.agents:
            self._start_agents()
        self._await_servers()
        self._await("migrate", lambda: migration.process.poll() == 0)
        self._supervisor.forget(migration)
        self._start_service("api", "agentex.cli.main", "serve")
        self._start_service("worker", "agentex.cli.main", "worker")
        for name, place in (("api", self._api), ("worker", self._worker)):
            self._await(name, lambda place=place: place.get("/readyz") is not None)
        for name in self._agents:
            self._await(name, lambda name=name: self._agent_id(name) is not None)

    def _await(self, name: str, condition: Callable[[], bool]) -> None:
        """Wait until a part is ready; says for whom it waits, and when that is over."""
        what = f"{name} being ready (log: {self._log(name)})"
        say(f"  {name:<12}", end="")
        try:
            self._supervisor.wait_for(condition, what, _READY_SECONDS)
        except (StackError, StopRequested):
            say("not ready")
            raise
        say(f"ready after {time.monotonic() - self._began:.1f} s")

    def _await_servers(self) -> None:
        if self._postgres:
            self._await("postgres", self._postgres.is_ready)
        if self._redis:
            self._await("redis", self._redis.is_ready)
        if self._temporal:
            self._await("temporal", self._temporal.is_ready)
        else:
            self._refuse_silent_temporal()

    def _refuse_silent_temporal(self) -> None:
        """One of the caller's own that is away would only show as a worker that is never ready."""
        address = self._environment["AGENTEX_TEMPORAL_ADDRESS"]
        host, _, port = address.rpartition(":")
        if not port.isdigit() or not accepts(int(port), host.strip("[]")):
            raise StackError(f"Temporal at {address} (AGENTEX_TEMPORAL_ADDRESS) takes no connections")

    def _agent_id(self, name: str) -> str | None:
        """Its id once it has registered now; an earlier start's row in the database would not tell."""
        health = self._agents[name].get("/healthz")
        return health["agent_id"] if health else None

    def _choose_ports(self) -> None:
        """Refuse a port that is taken before anything runs; the worker's may move unless it was asked for."""
        if self._api.port == 0:
            self._api = Place(self._api.host, free_port(self._api.host))
            self._environment["AGENTEX_PORT"] = str(self._api.port)
        if error := why_taken(self._api.port, self._api.host):
            raise StackError(_refused_port(self._api, error))
        if port_is_free(self._worker.port) and self._worker.port:
            return
        if self._environment.get("AGENTEX_WORKER_PORT", "0") != "0":
            raise StackError(f"port {self._worker.port} is in use; set AGENTEX_WORKER_PORT to a free port")
        self._worker = Place("127.0.0.1", free_port())
        self._environment["AGENTEX_WORKER_PORT"] = str(self._worker.port)

    def _start_temporal(self) -> None:
        if self._environment.get("AGENTEX_TEMPORAL_ADDRESS"):
            return
        self._temporal = EmbeddedTemporal(
            kept_port(self.data_directory, "temporal"), log=self._log("temporal")
        )
        self._environment["AGENTEX_TEMPORAL_ADDRESS"] = self._temporal.address
        self._supervise("temporal", self._temporal.spawn, _TEMPORAL_ENDING)

    def _start_postgres(self) -> None:
        if self._environment.get("AGENTEX_DATABASE_URL"):
            return
        place = self.data_directory / "postgres"
        self._postgres = EmbeddedPostgres(place, free_port(), log=self._log("postgres"))
        if self._postgres.home.notice:
            say(self._postgres.home.notice)
        self._supervise("postgres", self._postgres.spawn, _POSTGRES_ENDING)
        self._environment["AGENTEX_DATABASE_URL"] = self._postgres.url

    def _start_redis(self) -> None:
        if self._environment.get("AGENTEX_REDIS_URL"):
            return
        self._redis = EmbeddedRedis.find(kept_port(self.data_directory, "redis"), log=self._log("redis"))
        if self._redis is None or find_spec("redis") is None:
            self._redis = None
            return
        self._supervise("redis", self._redis.spawn, _REDIS_ENDING)
        self._environment["AGENTEX_REDIS_URL"] = self._redis.url

    def _start_agents(self) -> None:
        for name, module in _AGENTS.items():
            self._agents[name] = place = Place("127.0.0.1", free_port())
            arguments = ["--port", str(place.port), "--server", self._api.url, "--name", name]
            self._start_service(name, module, *arguments)

    def _start_service(self, name: str, module: str, *arguments: str) -> None:
        command = self._python(module, *arguments)
        self._supervise(name, lambda: spawn(command, self._log(name)), _SERVICE_ENDING)

    def _start_migration(self) -> Child:
        seconds = _READY_SECONDS if self._postgres else _OWN_SERVER_SECONDS
        command, log = self._python("agentex.dev.migrate", str(seconds)), self._log("migrate")
        child = Child("migrate", log, lambda: spawn(command, log), _SERVICE_ENDING, once=True)
        self._supervisor.start(child)
        return child

    def _supervise(self, name: str, start: Callable[[], subprocess.Popen[bytes]], ending: Ending) -> None:
        self._supervisor.start(Child(name, self._log(name), start, ending))

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _python(self, module: str, *arguments: str) -> Command:
        return Command([sys.executable, "-m", module, *arguments], environment=self._environment)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}"))


def _refused_port(place: Place, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {place.port} on {place.host} is in use; stop what listens there, "
            "or set AGENTEX_PORT to a free port"
        )
    return (
        f"cannot listen on {place.host}:{place.port} (AGENTEX_HOST, AGENTEX_PORT): {error.strerror or error}"
    )
