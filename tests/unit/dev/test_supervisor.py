"""The supervisor of the dev stack, with small Python programs as children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentex.dev.errors import StackError
from agentex.dev.processes import Command, log_since, spawn, wait_until
from agentex.dev.supervisor import Backoff, Child, Ending, StopRequested, Supervisor

PATIENT = Ending(signal.SIGINT, 10)
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    with supervisor.signals():
        yield supervisor
        supervisor.stop()


def start(supervisor: Supervisor, program: str, log: Path, ending: Ending = PATIENT) -> Child:
    """Start a Python program and wait until it has said something."""
    command = Command([sys.executable, "-c", program])
    child = Child(log.stem, log, lambda: spawn(command, log), ending)
    supervisor.start(child)
    wait_until(lambda: log_since(log, 0) != "", "the first line of the child", 10)
    return child


def watch_one_restart(supervisor: Supervisor, child: Child) -> None:
    """Watch until the child has been started again."""
    again = child.spawn

    def spawn_and_stop() -> subprocess.Popen[bytes]:
        process = again()
        os.kill(os.getpid(), signal.SIGINT)
        return process

    child.backoff.first_seconds = 0.01
    child.spawn = spawn_and_stop
    with pytest.raises(StopRequested):
        supervisor.watch()


def test_child_that_ended_is_reported_with_its_log_and_started_again(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "worker.log"
    child = start(supervisor, SLEEPER, log)
    first = child.process
    first.kill()
    watch_one_restart(supervisor, child)
    stdout, stderr = capsys.readouterr()
    line = f"agentex dev: worker ended with signal SIGKILL; see {log}; starting it again in 0.01 s\n"
    assert (stderr, stdout) == (line, "worker started again\n")
    assert (child.process.pid != first.pid, child.process.poll()) == (True, None)


def test_start_that_fails_later_is_tried_again(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = start(supervisor, SLEEPER, tmp_path / "worker.log")
    again = child.spawn

    def refuse_once() -> subprocess.Popen[bytes]:
        if first_time.pop():
            raise OSError(28, "No space left on device", str(child.log))
        return again()

    first_time = [False, True]
    child.spawn = refuse_once
    child.process.kill()
    watch_one_restart(supervisor, child)
    stderr = capsys.readouterr().err
    reason = f"[Errno 28] No space left on device: '{child.log}'"
    assert f"agentex dev: worker cannot start: {reason}; trying again in 0.02 s\n" in stderr


def test_child_that_ends_during_the_start_is_reported_with_its_log(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    child = start(supervisor, "import sys; print('no', flush=True); sys.exit(3)", log)
    child.process.wait(10)
    with pytest.raises(StackError, match=rf"^worker ended with exit code 3; see {log}$"):
        supervisor.check()


def test_what_runs_once_may_end_well_and_says_why_when_it_does_not(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    log = tmp_path / "migrate.log"
    start(supervisor, "print('done', flush=True)", log).once = True
    for child in supervisor.children:
        child.process.wait(10)
    supervisor.check()
    start(supervisor, "import sys; sys.exit('no such server')", log).once = True
    supervisor.children[-1].process.wait(10)
    with pytest.raises(StackError, match=rf"^migrate ended with exit code 1; no such server; see {log}$"):
        supervisor.check()


def test_backoff_doubles_up_to_its_limit_and_begins_anew_after_a_sound_life() -> None:
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (5, 0, 59, 0, 0, 0, 0)] == [1, 2, 4, 8, 16, 30, 30]
    assert [backoff.after(lived) for lived in (60, 0)] == [1, 2]


def test_stop_ends_lower_ranks_first(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    program = f"""
import signal, sys, time
def end(number, frame):
    time.sleep(0.1)
    with open({str(order)!r}, "a") as file: file.write("NAME ")
    sys.exit()
signal.signal(signal.SIGINT, end)
{SLEEPER}"""
    for name, rank in (("server", 1), ("service", 0)):
        ending = Ending(signal.SIGINT, 10, rank)
        start(supervisor, program.replace("NAME", name), tmp_path / f"{name}.log", ending)
    supervisor.stop()
    assert order.read_text() == "service server "


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
    ending = Ending(signal.SIGTERM, 10)
    children = [start(supervisor, SLEEPER, tmp_path / f"{name}.log", ending) for name in ("api", "worker")]
    supervisor.finish(children)
    assert [child.process.returncode for child in children] == [-signal.SIGTERM] * 2


def test_finish_kills_what_does_not_listen(supervisor: Supervisor, tmp_path: Path) -> None:
    child = start(supervisor, DEAF, tmp_path / "worker.log", Ending(signal.SIGINT, 0.1))
    supervisor.finish([child])
    assert child.process.returncode == -signal.SIGKILL


def test_second_stop_signal_kills_without_waiting(supervisor: Supervisor, tmp_path: Path) -> None:
    child = start(supervisor, DEAF, tmp_path / "worker.log", Ending(signal.SIGINT, 600))
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
    supervisor.finish([child])
    assert child.process.returncode == -signal.SIGKILL


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    with Supervisor().signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before
