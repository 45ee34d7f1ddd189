"""Child processes: started in a session of their own, logged to a file, stopped for certain."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentex.dev import child as _child
from agentex.dev.errors import StackError

# A log that has grown beyond this is set aside (one generation) when its process starts again.
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
POLL_SECONDS = 0.03
# Postgres writes its log ahead in segments of 16 MiB; with less than one it cannot go on.
_FULL_BELOW_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Owner:
    """A user and a group that a child runs as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to run. `death_signal` (None: none) is sent to it when the thread that started it ends (Linux)."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    owner: Owner | None = None
    directory: Path | None = None
    death_signal: signal.Signals | None = signal.SIGINT
    keep_descriptors: Sequence[int] = ()

    def trampoline(self) -> list[str]:
        """The command line that runs it through `agentex.dev.child`."""
        uid, gid = (str(self.owner.uid), str(self.owner.gid)) if self.owner else ("-", "-")
        program = [sys.executable, "-I", "-S", str(Path(_child.__file__).resolve())]
        place = str(self.directory) if self.directory else "-"
        return [
            *program,
            str(os.getpid()),
            str(int(self.death_signal or 0)),
            uid,
            gid,
            place,
            *self.arguments,
        ]


def spawn(command: Command, log: Path) -> subprocess.Popen[bytes]:
    """Start it with its output appended to `log`, out of reach of the terminal's Ctrl-C."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as output:
        return subprocess.Popen(
            command.trampoline(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(command.environment),
            start_new_session=True,
            pass_fds=tuple(command.keep_descriptors),
        )


def run(command: Command, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to its end and keep what it said; exit code 126 means that it could not be run."""
    return subprocess.run(
        command.trampoline(),
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=dict(command.environment),
    )


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the process alone; one that has ended is left in peace."""
    if process.poll() is None:
        process.send_signal(number)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL it and what it started in its session, and reap it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ends in time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def stop(process: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Try each (signal, seconds to wait) in turn, then SIGKILL."""
    for number, seconds in steps:
        send(process, number)
        if ended_within(process, seconds):
            return
    kill_group(process)


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Poll until `condition` holds. Raises StackError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"{what} did not happen within {seconds:g} s")
        time.sleep(POLL_SECONDS)


def describe_exit(code: int) -> str:
    """`exit code 3`, or `signal SIGKILL`."""
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def full_disk(place: Path) -> str | None:
    """`the disk of /home/me/.agentex is full (0 MB free)` when it is, as far as this user may write."""
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return None
    if free >= _FULL_BELOW_BYTES:
        return None
    return f"the disk of {place} is full ({free // 1_000_000} MB free)"


def log_size(log: Path) -> int:
    """Bytes in the log now, to tell later what is new in it."""
    return log.stat().st_size if log.exists() else 0


def log_since(log: Path, offset: int, lines: int = 12) -> str:
    """The last lines that were written after `offset`."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(offset if offset <= log_size(log) else 0)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
