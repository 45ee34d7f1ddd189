"""Whoever starts the stack: root or a normal user, and what becomes of the folders around it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentex.dev.processes import Command, Owner, run
from tests.stack.dev_stack import DevStack
from tests.support.postgres import open_folder

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root and somebody else"),
]

MakeStack = Callable[..., DevStack]
ROOT = Path(__file__).parents[2]
NOBODY = Owner(65534, 65534)


def permissions(paths: list[Path]) -> list[tuple[int, int, int]]:
    """Mode and owner of each."""
    return [(status.st_mode, status.st_uid, status.st_gid) for status in (path.stat() for path in paths)]


def test_as_root_postgres_is_somebody_else_and_no_folder_around_changes(make_stack: MakeStack) -> None:
    stack = make_stack("--no-agents")
    stack.data_directory.mkdir(mode=0o711)
    (stack.data_directory / "mine").mkdir(mode=0o750)
    around = [stack.data_directory, stack.data_directory / "mine", *stack.data_directory.parents]
    before = permissions(around)
    stack.start()
    uids = {name: process.uids().real for name, process in stack.children().items()}
    assert uids.pop("postgres") != 0
    assert set(uids.values()) == {0}
    assert stack.interrupt() == 0
    assert permissions(around) == before


@pytest.fixture
def clone() -> Iterator[Path]:
    """An empty clone in a home of its own, which is nobody's."""
    python = Path("/usr/bin/python3")
    usable = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    if shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("no setpriv and unshare to start a stack as somebody else and without a network")
    if not python.exists() or run(Command([str(python), "-c", usable], owner=NOBODY)).returncode != 0:
        pytest.skip("the system has no Python 3.11 with venv that another user can run")
    home = open_folder()
    subprocess.run(["git", "clone", "--quiet", ROOT, home / "agentex"], check=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid, follow_symlinks=False)
    yield home / "agentex"
    shutil.rmtree(home)


@pytest.mark.timeout(900)
def test_a_normal_user_starts_an_empty_clone_and_again_without_a_network(
    make_stack: MakeStack, clone: Path
) -> None:
    home = clone.parent
    as_nobody = ["setpriv", f"--reuid={NOBODY.uid}", f"--regid={NOBODY.gid}", "--clear-groups"]
    without_network = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    environment = {
        "HOME": str(home),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": None,
        "VIRTUAL_ENV": None,
    }
    for prefix, seconds in ((as_nobody, 600), ([*without_network, *as_nobody], 60)):
        program = [*prefix, str(clone / "dev.sh")]
        stack = make_stack(data_directory=home / ".agentex", program=program, environment=environment)
        stack.start(seconds)
        assert {process.uids().real for process in stack.children().values()} == {NOBODY.uid}
        assert stack.children().keys() >= {"postgres", "temporal", "api", "worker"}
        assert (stack.interrupt(), stack.left_over()) == (0, [])
    assert {path.lstat().st_uid for path in home.rglob("*")} == {NOBODY.uid}
