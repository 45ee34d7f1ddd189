"""Servers that the environment names are used, and nothing is embedded in their place."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentex.dev import migrate
from agentex.dev.ports import accepts, free_port
from agentex.dev.postgres_home import find_home
from agentex.dev.processes import Command, run, spawn, stop, wait_until
from tests.stack.dev_stack import REDIS, DevStack
from tests.support.postgres import PostgresServer, open_folder
from tests.support.temporal import start_temporal

pytestmark = pytest.mark.timeout(300)

MakeStack = Callable[..., DevStack]
# What is not a server of the caller's own.
SERVICES = {"api", "worker", "demo-async", "demo-sync", *REDIS}


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that other users can enter."""
    directory = open_folder()
    yield directory
    shutil.rmtree(directory)


def installed(version: int) -> Path | None:
    """Where this machine has a Postgres of that version: the wheel's two, or the system's."""
    home = find_home(open_folder() / "postgres")
    shutil.rmtree(home.directory.parent)
    wheel = home.binaries.parents[1]
    places = [wheel / "pginstall" / "bin", home.binaries, Path(f"/usr/lib/postgresql/{version}/bin")]
    for place in places:
        if (place / "postgres").exists():
            said = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True).stdout
            if f" {version}." in said:
                return place
    return None


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of a Postgres as somebody else sets it up, of the version that is the parameter."""
    binaries = installed(request.param)
    if binaries is None:
        pytest.skip(f"no Postgres {request.param} on this machine")
    home, port = find_home(folder / "postgres"), free_port()
    cluster = str(home.directory / "cluster")

    def command(program: str, *arguments: str) -> Command:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        words = [str(binaries / program), "-D", cluster, *arguments]
        return Command(words, environment=environment, owner=home.owner, directory=home.directory)

    made = run(command("initdb", "--username=me", "--auth=trust", "--encoding=UTF8", "--no-sync"))
    assert made.returncode == 0, made.stderr
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    process = spawn(command("postgres", *options), folder / "own.log")
    wait_until(lambda: accepts(port, "127.0.0.1"), "the own Postgres", 30)
    yield f"postgresql://me@127.0.0.1:{port}/postgres"
    stop(process, [(signal.SIGQUIT, 10)])


@pytest.mark.parametrize("own_postgres", [15, 16, 17, 18], indirect=True)
def test_own_postgres_is_used_and_none_is_embedded(make_stack: MakeStack, own_postgres: str) -> None:
    stack = make_stack(environment={"AGENTEX_DATABASE_URL": own_postgres})
    stack.start()
    assert stack.children().keys() == SERVICES | {"temporal"}
    assert not (stack.data_directory / "postgres").exists()


def test_own_temporal_is_used_and_none_is_embedded(make_stack: MakeStack, tmp_path: Path) -> None:
    temporal = start_temporal(tmp_path)
    stack = make_stack(environment={"AGENTEX_TEMPORAL_ADDRESS": temporal.address})
    stack.start()
    assert stack.children().keys() == SERVICES | {"postgres"}
    assert (stack.interrupt(), temporal.process.poll()) == (0, None)
    temporal.stop()


def test_own_temporal_that_is_away_is_named(make_stack: MakeStack) -> None:
    address = f"127.0.0.1:{free_port()}"
    stack = make_stack("--no-agents", environment={"AGENTEX_TEMPORAL_ADDRESS": address})
    said = stack.refused().splitlines()[-1]
    assert said == f"agentex dev: Temporal at {address} (AGENTEX_TEMPORAL_ADDRESS) takes no connections"


def test_own_postgres_that_refuses_is_told_in_one_line(make_stack: MakeStack) -> None:
    server = PostgresServer()
    server.start()
    url = server.postgres.url.replace("agentex:", "agentex:wrong-")
    stack = make_stack("--no-agents", environment={"AGENTEX_DATABASE_URL": url})
    said = stack.refused().splitlines()[-1]
    server.close()
    reason = 'cannot connect to Postgres: password authentication failed for user "agentex"'
    log = stack.log_of("migrate")
    assert said == f"agentex dev: migrate ended with exit code 1; {reason}; see {log}"


def test_own_postgres_that_is_away_is_told_in_one_line(make_stack: MakeStack) -> None:
    url = f"postgresql://me@127.0.0.1:{free_port()}/postgres"
    stack = make_stack("--no-agents", environment={"AGENTEX_DATABASE_URL": url})
    said = stack.refused().splitlines()[-1]
    assert said.startswith("agentex dev: migrate ended with exit code 1; cannot connect to Postgres: ")
    assert said.endswith(f"; see {stack.log_of('migrate')}")


def test_postgres_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    server = PostgresServer()
    server.start()
    monkeypatch.setenv("AGENTEX_DATABASE_URL", server.postgres.url)
    monkeypatch.setattr(migrate, "_OLDEST", 99)
    monkeypatch.setattr("sys.argv", ["migrate", "10"])
    with pytest.raises(SystemExit, match=r"^Postgres 18 is too old: it has to be 99 or newer$"):
        migrate.main()
    assert server.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"
    server.close()
