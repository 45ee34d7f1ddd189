"""The embedded Postgres, started for real as whoever runs the tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentex.dev.errors import StackError
from agentex.dev.ports import free_port
from agentex.dev.postgres import EmbeddedPostgres
from agentex.dev.postgres_home import find_home
from agentex.dev.processes import ended_within
from tests.support.postgres import PostgresServer, open_folder


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that other users can enter."""
    directory = open_folder()
    yield directory
    shutil.rmtree(directory)


def test_postgres_listens_on_loopback_with_a_password(server: PostgresServer) -> None:
    postgres = server.postgres
    pattern = rf"postgresql://agentex:[\w-]{{32}}@127\.0\.0\.1:{postgres.port}/agentex"
    addresses = {connection.laddr.ip for connection in psutil.Process(postgres.process.pid).net_connections()}
    wrong = re.sub(":[^:@]+@", ":wrong@", postgres.url)
    with pytest.raises(Exception, match="returned non-zero exit status"):
        server.execute("SELECT 1", url=wrong)
    assert (re.fullmatch(pattern, postgres.url) is not None, addresses) == (True, {"127.0.0.1"})


def test_postgres_never_runs_as_root_and_keeps_its_secrets(server: PostgresServer) -> None:
    home = server.postgres.home
    modes = {name: stat.S_IMODE((home.directory / name).stat().st_mode) for name in ("cluster", "password")}
    assert psutil.Process(server.postgres.process.pid).uids().real != 0
    assert modes == {"cluster": 0o700, "password": 0o600}


def test_postgres_has_utf8_and_utc(server: PostgresServer) -> None:
    row = server.execute(
        "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale, current_setting('timezone'), "
        "current_user, current_database() FROM pg_database WHERE datname = current_database()"
    )
    assert row == "UTF8|b|C.UTF-8|UTC|agentex|agentex"


def test_stopped_and_started_postgres_keeps_data_and_password(server: PostgresServer) -> None:
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    url = server.postgres.url
    server.postgres.stop()
    assert server.postgres.process.returncode == 0
    server.start()
    assert (server.execute("SELECT answer FROM kept"), server.postgres.url) == ("42", url)


def test_killed_postgres_starts_again_over_its_stale_pid_file(server: PostgresServer) -> None:
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    first = server.postgres.process.pid
    server.postgres.kill()
    assert (server.postgres.home.directory / "cluster" / "postmaster.pid").exists()
    server.start()
    assert server.execute("SELECT answer FROM kept") == "42"
    assert server.postgres.process.pid != first


def test_stale_pid_file_that_names_a_living_process_is_no_obstacle(server: PostgresServer) -> None:
    server.postgres.stop()
    pid_file = server.postgres.home.directory / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{pid_file.parent}\n")
    server.start()
    assert server.execute("SELECT 1") == "1"


def test_second_postgres_on_the_same_folder_is_refused(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentex.dev.postgres._LOCK_SECONDS", 0.1)
    second = EmbeddedPostgres(server.directory / "postgres", free_port())
    with pytest.raises(StackError) as refusal:
        second.start()
    cluster = server.directory / "postgres" / "cluster"
    pid = server.postgres.process.pid
    assert str(refusal.value) == f"another Postgres is running on {cluster} (process {pid})"
    assert server.execute("SELECT 1") == "1"


def test_port_in_use_is_told_with_the_log(server: PostgresServer) -> None:
    second = EmbeddedPostgres(server.directory / "second", server.postgres.port, durable=False)
    with pytest.raises(StackError, match="Postgres ended with exit code 1; see ") as refusal:
        second.start()
    assert str(second.log) in str(refusal.value)
    assert "Address already in use" in str(refusal.value)
    assert second.process.returncode == 1


def test_databases_made_from_a_template_are_independent(server: PostgresServer) -> None:
    def migrate(url: str) -> None:
        server.execute("CREATE TABLE notes (text text)", url=url)

    server.make_template("migrated", migrate)
    one, two = (server.create_database("migrated") for _ in range(2))
    server.execute("INSERT INTO notes VALUES ('only in one')", url=one)
    counts = [server.execute("SELECT count(*) FROM notes", url=url) for url in (one, two)]
    server.drop_database(one)
    left = server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test_%'")
    assert (counts, left) == (["1", "0"], two.rpartition("/")[2])


def test_interrupted_initialisation_leaves_nothing_in_the_way(server: PostgresServer) -> None:
    home = server.postgres.home
    server.postgres.stop()
    (home.directory / "cluster").rename(home.directory / "cluster.new")
    server.start()
    assert server.execute("SELECT current_database()") == "agentex"
    assert not (home.directory / "cluster.new").exists()


def test_folder_with_something_else_in_it_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    mode = tmp_path.stat().st_mode
    with pytest.raises(StackError) as refusal:
        find_home(tmp_path)
    assert str(refusal.value) == f"{tmp_path} holds 'thesis.tex': it is no embedded Postgres folder of ours"
    assert tmp_path.stat().st_mode == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root does Postgres run as another user")
def test_closed_folder_is_replaced_by_a_stand_in_and_stays_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentex.dev.postgres_home._FALLBACK", folder / "fallback")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    home = find_home(closed / "postgres")
    assert home.directory.is_relative_to(folder / "fallback")
    assert (
        home.notice
        == f"Postgres keeps its files in {home.directory}: its user cannot reach {closed}/postgres"
    )
    assert (stat.S_IMODE(closed.stat().st_mode), list(closed.iterdir())) == (0o700, [])


@pytest.fixture
def umask_077() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root does Postgres run as another user")
@pytest.mark.usefixtures("umask_077")
def test_stand_in_can_be_reached_whatever_the_umask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = find_home(folder / "open").binaries.parent
    wheel = folder / "venv" / installed.parent.name
    shutil.copytree(installed, wheel / installed.name)
    libraries = installed.parent.with_name(f"{wheel.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, wheel.with_name(libraries.name))
    for path in wheel.parent.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.setattr("agentex.dev.postgres_home._FALLBACK", folder / "lib" / "agentex")
    monkeypatch.setattr(
        "agentex.dev.postgres_home._installed_binaries", lambda: wheel / installed.name / "bin"
    )
    (folder / "closed").mkdir()
    home = find_home(folder / "closed" / "postgres")
    places = (home.directory, home.binaries)
    assert all(place.is_relative_to(folder / "lib" / "agentex") for place in places)
    assert stat.S_IMODE(wheel.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root does Postgres run as another user")
def test_data_behind_a_closed_folder_is_never_replaced(folder: Path) -> None:
    data = folder / "closed" / "postgres"
    find_home(data)
    (data / "cluster").mkdir()
    data.parent.chmod(0o700)
    with pytest.raises(
        StackError, match=r"owns the data in .* and cannot reach it: a folder above is closed"
    ):
        find_home(data)
    assert (data / "cluster").exists()


def test_immediate_stop_ends_it_and_loses_nothing_committed(server: PostgresServer) -> None:
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.postgres.stop_at_once()
    server.start()
    assert server.execute("SELECT answer FROM kept") == "42"


def test_postgres_told_to_stop_from_outside_is_noticed(server: PostgresServer) -> None:
    server.postgres.process.send_signal(signal.SIGTERM)
    assert ended_within(server.postgres.process, 10)
    with pytest.raises(StackError, match="Postgres ended with exit code 0; see "):
        server.postgres.is_ready()
