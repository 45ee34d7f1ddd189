"""The supervisor of the dev stack, with small Python programs as children."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentex.dev.errors import StackError
from agentex.dev.processes import Command, kill_group, log_since, wait_until
from agentex.dev.supervisor import Child, StopRequested, Supervisor

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    with supervisor.signals():
        yield supervisor
    for child in supervisor.children:
        kill_group(child.process)


def start(supervisor: Supervisor, program: str, log: Path) -> Child:
    """Start a Python program and wait until it has said something."""
    child = supervisor.start(log.stem, Command([sys.executable, "-c", program]), log)
    wait_until(lambda: log_since(log, 0) != "", "the first line of the child", 10)
    return child


def test_child_that_ends_is_reported_with_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    start(supervisor, "import sys; print('no', flush=True); sys.exit(3)", log)
    with pytest.raises(StackError, match=rf"^worker ended with exit code 3; see {log}$"):
        supervisor.watch()


def test_killed_child_is_reported_with_the_signals_name(supervisor: Supervisor, tmp_path: Path) -> None:
    child = start(supervisor, SLEEPER, tmp_path / "api.log")
    child.process.kill()
    with pytest.raises(StackError, match="api ended with signal SIGKILL"):
        supervisor.watch()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_signal_ends_the_watch(supervisor: Supervisor, tmp_path: Path, number: signal.Signals) -> None:
    start(supervisor, SLEEPER, tmp_path / "api.log")
    os.kill(os.getpid(), number)
    with pytest.raises(StopRequested):
        supervisor.watch()


def test_wait_for_gives_up_when_a_child_ends_first(supervisor: Supervisor, tmp_path: Path) -> None:
    start(supervisor, "print('bye', flush=True)", tmp_path / "api.log")
    with pytest.raises(StackError, match="api ended with exit code 0"):
        supervisor.wait_for(lambda: False, "the impossible", 30)


def test_wait_for_names_what_did_not_happen(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match=r"^api ready did not happen within 0\.1 s$"):
        supervisor.wait_for(lambda: False, "api ready", 0.1)


def test_finish_signals_all_and_reaps_them(supervisor: Supervisor, tmp_path: Path) -> None:
    children = [start(supervisor, SLEEPER, tmp_path / f"{name}.log") for name in ("api", "worker")]
    supervisor.finish(children, signal.SIGTERM, 10)
    assert [child.process.returncode for child in children] == [-signal.SIGTERM] * 2


def test_finish_kills_what_does_not_listen(supervisor: Supervisor, tmp_path: Path) -> None:
    child = start(supervisor, DEAF, tmp_path / "worker.log")
    supervisor.finish([child], signal.SIGINT, 0.1)
    assert child.process.returncode == -signal.SIGKILL


def test_second_stop_signal_kills_without_waiting(supervisor: Supervisor, tmp_path: Path) -> None:
    child = start(supervisor, DEAF, tmp_path / "worker.log")
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
    supervisor.finish([child], signal.SIGINT, 600)
    assert child.process.returncode == -signal.SIGKILL


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    with Supervisor().signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before
