"""Whoever starts the stack: root or a normal user, and what becomes of the folders around it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
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


def test_as_a_normal_user_everything_is_that_users(make_stack: MakeStack) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to start a stack as somebody else")
    command = Command([sys.executable, "-c", "import agentex.cli.main"], owner=NOBODY, directory=ROOT)
    if (tried := run(command)).returncode != 0:
        pytest.skip(f"another user cannot run this checkout: {tried.stderr.splitlines()[-1]}")
    home = open_folder()
    os.chown(home, NOBODY.uid, NOBODY.gid)
    prefix = ["setpriv", f"--reuid={NOBODY.uid}", f"--regid={NOBODY.gid}", "--clear-groups"]
    environment = {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    stack = make_stack(data_directory=home / ".agentex", prefix=prefix, environment=environment)
    stack.start()
    assert {process.uids().real for process in stack.children().values()} == {NOBODY.uid}
    assert (stack.interrupt(), stack.left_over()) == (0, [])
    assert {path.stat().st_uid for path in home.rglob("*")} == {NOBODY.uid}
    shutil.rmtree(home)
