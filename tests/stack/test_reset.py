"""`agentex dev --reset`: our data goes, everybody else's stays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agentex.dev.errors import StackError
from agentex.dev.postgres_home import find_home, remove_cluster
from tests.stack.dev_stack import DevStack, run_printed
from tests.support.postgres import PostgresServer, open_folder

pytestmark = pytest.mark.timeout(300)

MakeStack = Callable[..., DevStack]


def agents(stack: DevStack) -> set[str]:
    """The ids of the agents it knows."""
    return {agent["id"] for agent in json.loads(run_printed(["curl", "-s", f"{stack.url}/agents"]))}


def test_reset_starts_empty_and_keeps_what_is_not_ours(make_stack: MakeStack) -> None:
    stack = make_stack()
    folder = stack.data_directory
    (folder / "logs").mkdir(parents=True)
    mine = [folder / "notes.txt", folder / "logs" / "nginx.log", folder / "logs" / "api.log.bak"]
    for path in mine:
        path.write_text("mine")
    stack.start()
    before = agents(stack)
    stack.interrupt()
    (folder / "logs" / "api.log").write_text("old\n")
    again = make_stack("--reset", data_directory=folder)
    again.start()
    after = agents(again)
    assert (len(before), len(after), before & after) == (2, 2, set())
    assert f"Removed {folder.resolve() / 'postgres'}\n" in again.supervisor.output()
    assert "old" not in again.log_of("api").read_text()
    assert [path.read_text() for path in mine] == ["mine"] * 3


def test_reset_is_refused_while_a_stack_runs(make_stack: MakeStack) -> None:
    first = make_stack()
    first.start()
    before = agents(first)
    second = make_stack("--reset", data_directory=first.data_directory)
    assert f"another stack (process {first.supervisor.pid}) runs on" in second.refused()
    assert agents(first) == before


def test_cluster_with_a_running_server_is_not_removed() -> None:
    server = PostgresServer()
    server.start()
    with pytest.raises(StackError) as refusal:
        remove_cluster(server.directory / "postgres")
    cluster, pid = server.directory / "postgres" / "cluster", server.postgres.process.pid
    assert str(refusal.value) == f"another Postgres is running on {cluster} (process {pid})"
    assert server.execute("SELECT 1") == "1"
    server.close()


@pytest.mark.parametrize("path", ["postgres/thesis.tex", "postgres/cluster/thesis.tex"])
def test_folder_that_is_no_cluster_of_ours_is_not_removed(tmp_path: Path, path: str) -> None:
    thesis = tmp_path / path
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    with pytest.raises(StackError, match=r"no embedded Postgres folder of ours|is no cluster of Postgres"):
        remove_cluster(tmp_path / "postgres")
    assert thesis.read_text() == "mine"


def test_interrupted_removal_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "cluster.new").mkdir(parents=True)
    assert remove_cluster(tmp_path / "postgres") == [tmp_path / "postgres"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root does Postgres run as another user")
def test_stand_in_for_a_closed_folder_is_removed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder()
    monkeypatch.setattr("agentex.dev.postgres_home._FALLBACK", folder / "fallback")
    (folder / "closed").mkdir(mode=0o700)
    home = find_home(folder / "closed" / "postgres")
    (home.directory / "cluster").mkdir()
    (home.directory / "cluster" / "PG_VERSION").write_text("18\n")
    assert remove_cluster(folder / "closed" / "postgres") == [home.directory]
    assert (home.directory.exists(), home.directory.is_relative_to(folder / "fallback")) == (False, True)
    shutil.rmtree(folder)
