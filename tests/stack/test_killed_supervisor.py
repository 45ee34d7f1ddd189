"""A supervisor that is killed: its children do not live on, and the next start finds everything in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from agentex.dev.processes import wait_until
from agentex.dev.warden import birth
from tests.stack.dev_stack import DevStack, is_running
from tests.support.processes import ManagedProcess

pytestmark = pytest.mark.timeout(300)

MakeStack = Callable[..., DevStack]
ROOT = Path(__file__).parents[2]
CHILD = """
import signal, sys, time
name, order = sys.argv[1:]
def end(number, frame):
    if name == "deaf":
        return
    time.sleep(0.2)
    with open(order, "a") as file:
        file.write(name + " ")
    sys.exit(0)
signal.signal(signal.SIGINT, end)
print("up", flush=True)
while True:
    time.sleep(600)
"""
# As on a system that tells no child of its parent's death: the warden alone has to stop them.
SUPERVISOR = """
import signal, sys
from pathlib import Path
from agentex.dev.processes import Command, spawn
from agentex.dev.supervisor import Child, Ending, Supervisor

folder, program = Path(sys.argv[1]), sys.argv[2]
supervisor = Supervisor()
with supervisor.signals():
    for name, rank in (("server", 1), ("service", 0), ("deaf", 0)):
        command = Command([sys.executable, "-c", program, name, str(folder / "order")], death_signal=None)
        log = folder / f"{name}.log"
        supervisor.start(Child(name, log, lambda: spawn(command, log), Ending(signal.SIGINT, 1, rank)))
    supervisor.watch()
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[ManagedProcess]:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), CHILD]
    process = ManagedProcess(command, environment={"PYTHONPATH": str(ROOT)}, log=tmp_path / "supervisor.log")
    process.start()
    logs = [tmp_path / f"{name}.log" for name in ("server", "service", "deaf")]
    wait_until(lambda: all(log.exists() and log.read_text() for log in logs), "the children", 30)
    started = psutil.Process(process.pid).children()
    yield process
    process.close()
    for left_over in filter(is_running, started):
        left_over.kill()


def kill(supervisor: ManagedProcess) -> list[psutil.Process]:
    """SIGKILL the supervisor alone; returns what it had started."""
    started = psutil.Process(supervisor.pid).children()
    os.kill(supervisor.pid, signal.SIGKILL)
    assert supervisor.wait(10) == -signal.SIGKILL
    return started


def warden_of(supervisor: ManagedProcess) -> psutil.Process | None:
    """Its warden, if it has one now."""
    for child in psutil.Process(supervisor.pid).children():
        if is_running(child) and "warden.py" in " ".join(child.cmdline()):
            return child
    return None


def all_ended(processes: list[psutil.Process]) -> bool:
    return not any(is_running(process) for process in processes)


def test_warden_alone_stops_all_in_order_and_kills_the_deaf(
    supervisor: ManagedProcess, tmp_path: Path
) -> None:
    started = kill(supervisor)
    assert len(started) == 4
    wait_until(lambda: all_ended(started), "the end of the children and of the warden", 30)
    assert (tmp_path / "order").read_text() == "service server "


def test_killed_warden_is_replaced_and_told_everything(supervisor: ManagedProcess, tmp_path: Path) -> None:
    first = warden_of(supervisor)
    assert first is not None
    first.kill()
    wait_until(lambda: warden_of(supervisor) not in (None, first), "another warden", 30)
    started = kill(supervisor)
    wait_until(lambda: all_ended(started), "the end of the children and of the warden", 30)
    assert (tmp_path / "order").read_text() == "service server "


def test_birth_tells_processes_apart_and_ended_ones_have_none() -> None:
    process = psutil.Popen([sys.executable, "-c", ""])
    wait_until(lambda: birth(process.pid) is None, "its end, not yet waited for", 10)
    process.wait()
    assert (birth(process.pid), birth(os.getpid()) is not None) == (None, True)
    if sys.platform == "linux":
        assert birth(os.getpid()) != birth(1)


def test_killed_stack_leaves_nothing_and_starts_again_at_once(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    stack.children()["worker"].suspend()  # deaf to every polite signal
    started = kill(stack.supervisor)
    stack.start()
    assert "was killed; waiting until its parts have stopped" in stack.supervisor.output()
    assert (all_ended(started), stack.log_of("postgres").exists()) == (True, True)
    assert "was not properly shut down" not in stack.log_of("postgres").read_text()


def test_stack_killed_during_its_start_leaves_nothing_and_starts_again(make_stack: MakeStack) -> None:
    stack = make_stack("--no-agents")
    stack.supervisor.start()
    wait_until(stack.log_of("migrate").exists, "the migration starting", 30)
    started = kill(stack.supervisor)
    stack.start()
    assert (all_ended(started), stack.interrupt()) == (True, 0)
