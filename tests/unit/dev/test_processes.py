"""How children of the dev stack are started and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agentex.dev.errors import StackError
from agentex.dev.processes import (
    Command,
    Owner,
    describe_exit,
    log_since,
    log_size,
    run,
    spawn,
    stop,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[3]
TELL_SIGNALS = "import signal; print([int(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGHUP)])"
PARENT = """
import sys, time
from pathlib import Path
from agentex.dev.processes import Command, spawn
child = spawn(Command([sys.executable, "-c", "import time; time.sleep(600)"]), Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


def python(program: str) -> Command:
    """A command that runs a Python program."""
    return Command([sys.executable, "-c", program])


def test_child_leads_a_session_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    process = spawn(python("import os; print(os.getsid(0) == os.getpid())"), log)
    assert (process.wait(10), log.read_text()) == (0, "True\n")


def test_child_keeps_the_process_id_it_was_started_with(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    process = spawn(python("import os; print(os.getpid())"), log)
    process.wait(10)
    assert log.read_text() == f"{process.pid}\n"


def test_ignored_signals_are_not_handed_down() -> None:
    ignoring = f"""
import signal
from agentex.dev.processes import Command, run
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print(run(Command([{sys.executable!r}, "-c", {TELL_SIGNALS!r}])).stdout)
"""
    result = subprocess.run(
        [sys.executable, "-c", ignoring], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str([int(signal.SIG_DFL)] * 2)


def test_command_that_cannot_be_run_says_why() -> None:
    result = run(Command(["/no/such/program"]))
    assert (result.returncode, result.stderr) == (
        126,
        "cannot run /no/such/program: [Errno 2] No such file or directory\n",
    )


def test_command_runs_in_the_directory_and_environment_given(tmp_path: Path) -> None:
    program = "import os; print(os.getcwd(), os.environ.get('COLOUR'), os.environ.get('HOME'))"
    command = Command([sys.executable, "-c", program], environment={"COLOUR": "red"}, directory=tmp_path)
    assert run(command).stdout == f"{tmp_path} red None\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "child.log")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    wait_until(lambda: not is_running(child), "the child's end", 10)


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie that nobody reaps in this container does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as somebody else")
def test_owner_is_who_the_child_runs_as_without_other_groups() -> None:
    command = Command(["/bin/sh", "-c", "id -u; id -g; id -G"], owner=Owner(65534, 65534))
    assert run(command).stdout.split() == ["65534", "65534", "65534"]


def test_stop_escalates_to_kill(tmp_path: Path) -> None:
    log = tmp_path / "deaf.log"
    program = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True)"
    process = spawn(python(f"{program}; time.sleep(600)"), log)
    wait_until(lambda: log_size(log) > 0, "the child listening", 10)
    stop(process, [(signal.SIGINT, 0.1)])
    assert process.returncode == -signal.SIGKILL


def test_output_is_appended_and_a_large_log_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    for word in ("one", "two"):
        spawn(python(f"print('{word}')"), log).wait(10)
    assert log.read_text() == "one\ntwo\n"
    with log.open("ab") as file:
        file.truncate(11 * 1024 * 1024)
    spawn(python("print('three')"), log).wait(10)
    assert (log.read_text(), (tmp_path / "child.log.1").stat().st_size) == ("three\n", 11 * 1024 * 1024)


def test_log_since_gives_the_last_lines_after_the_offset(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("old\n")
    offset = log_size(log)
    log.write_text("old\n1\n2\n3\n")
    assert (log_since(log, offset, lines=2), log_since(tmp_path / "none.log", 0)) == ("2\n3", "")


def test_exit_codes_are_described() -> None:
    assert [describe_exit(code) for code in (0, 3, -9)] == ["exit code 0", "exit code 3", "signal SIGKILL"]


def test_wait_until_names_what_did_not_happen() -> None:
    with pytest.raises(StackError, match=r"^the miracle did not happen within 0 s$"):
        wait_until(lambda: False, "the miracle", 0)
