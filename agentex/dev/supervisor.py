"""Watches over a group of children: none may end unnoticed, none may outlive the supervisor.

Signals only set a flag (and wake the loop through a pipe); they are acted upon at `check`, `wait_for` and
`watch`, so no child can be lost between being started and being written down.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from agentex.dev.errors import StackError
from agentex.dev.processes import (
    POLL_SECONDS,
    describe_exit,
    full_disk,
    kill_group,
    log_since,
    log_size,
    send,
)
from agentex.dev.terminal import complain, say
from agentex.dev.warden import Charge, Warden

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# After a second Ctrl-C: what Postgres takes for an immediate shutdown, and a kill needs nothing of.
_HURRY_SECONDS = 5


def _ignored_for_good(number: signal.Signals) -> bool:
    """`nohup` means it; a shell that ignores SIGINT for what it starts in the background does not."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


class StopRequested(Exception):  # noqa: N818 (no error: somebody is done for today)
    """Ctrl-C, SIGTERM or a closed terminal: end in order."""


@dataclass
class Backoff:
    """How long to wait before a child that ended is started again."""

    # A crash at once is likely to be the next crash too; beyond 30 s a person would think it is given up.
    first_seconds: float = 1
    most_seconds: float = 30
    # Who lived this long did not die of how it was started.
    sound_seconds: float = 60
    _next: float = 0

    def after(self, lived_seconds: float) -> float:
        """The wait after a life of `lived_seconds`: 1, 2, 4 … 30 s, from the start again after a long one."""
        fresh = lived_seconds >= self.sound_seconds or not self._next
        wait = self.first_seconds if fresh else self._next
        self._next = min(2 * wait, self.most_seconds)
        return wait


@dataclass(frozen=True)
class Ending:
    """How a child is stopped: the signal `number`, and SIGKILL after `seconds`; lower ranks first."""

    number: signal.Signals
    seconds: float
    rank: int = 0
    # After a second Ctrl-C.
    hurried: signal.Signals = signal.SIGKILL


@dataclass
class Child:
    """A process that has to live as long as the stack, or (`once`) to end with success."""

    name: str
    log: Path
    spawn: Callable[[], subprocess.Popen[bytes]]
    ending: Ending = Ending(signal.SIGINT, 10)
    once: bool = False
    backoff: Backoff = field(default_factory=Backoff)
    # When it is started again, by time.monotonic; None while it runs.
    due: float | None = None
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0
    _log_offset: int = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The last one. Raises StackError before the first start."""
        if self._process is None:
            raise StackError(f"{self.name} was not started")
        return self._process

    def start(self) -> None:
        """Start it, for the first time or again. Raises OSError or what `spawn` raises."""
        self._started = time.monotonic()
        self._log_offset = log_size(self.log)
        self._process = self.spawn()
        self.due = None

    def start_later(self) -> float:
        """Note when to start it again; returns in how many seconds."""
        now = time.monotonic()
        wait = self.backoff.after(now - self._started)
        self.due = now + wait
        return wait

    def failure(self) -> str | None:
        """What is to be told when it has ended and should not have."""
        code = self.process.poll()
        if code is None or (self.once and code == 0):
            return None
        # What runs once says at its end why; what serves has said much else since.
        said = log_since(self.log, self._log_offset, lines=1) if self.once else None
        ended = f"{self.name} ended with {describe_exit(code)}"
        parts = [ended, full_disk(self.log.parent), said, f"see {self.log}"]
        return "; ".join(part for part in parts if part)


class Supervisor:
    """Children in the order of their start, and the stop signals that came in."""

    def __init__(self, warden: Warden | None = None) -> None:
        self.children: list[Child] = []
        self._warden = warden or Warden()
        self._stops = 0
        self._wake_reader, self._wake_writer = os.pipe()
        for descriptor in (self._wake_reader, self._wake_writer):
            os.set_blocking(descriptor, False)

    @contextlib.contextmanager
    def signals(self) -> Generator[None]:
        """Take over the stop signals and SIGCHLD for the block; the main thread only."""
        numbers = [number for number in _STOP_SIGNALS if not _ignored_for_good(number)]
        handlers = {number: signal.signal(number, self._on_stop) for number in numbers}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        previous = signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def start(self, child: Child) -> None:
        """Start a child and watch it from now on. Raises what `Child.start` and `check` raise."""
        self._start(child)
        self.children.append(child)
        self.check()

    def check(self) -> None:
        """Raises StopRequested after a stop signal, StackError when a child has ended."""
        if self._stops:
            raise StopRequested
        for child in self.children:
            if failure := child.failure():
                raise StackError(failure)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Poll until `condition` holds, checking everything before. Raises StackError after `seconds`."""
        deadline = time.monotonic() + seconds
        self.check()
        while not condition():
            if time.monotonic() > deadline:
                raise StackError(f"{what} did not happen within {seconds:g} s")
            self._sleep(POLL_SECONDS)
            self.check()

    def watch(self) -> None:
        """Start again whatever ends, until a stop signal raises StopRequested."""
        while True:
            if self._stops:
                raise StopRequested
            self._warden.ensure()
            for child in self.children:
                self._look_after(child)
            dues = [child.due for child in self.children if child.due is not None]
            self._sleep(max(0.0, min(dues) - time.monotonic()) if dues else None)

    def stop(self) -> None:
        """End all children, rank by rank; never raises for one that has ended."""
        for rank in sorted({child.ending.rank for child in self.children}):
            self.finish([child for child in self.children if child.ending.rank == rank])
        self._warden.close()

    def finish(self, children: Sequence[Child]) -> None:
        """Signal them at once and wait for them together; kill what takes too long, or at another Ctrl-C."""
        hurried = self._stops > 1
        for child in children:
            send(child.process, child.ending.hurried if hurried else child.ending.number)
        seconds = _HURRY_SECONDS if hurried else max(child.ending.seconds for child in children)
        stops, deadline = self._stops, time.monotonic() + seconds
        while any(child.process.poll() is None for child in children):
            if time.monotonic() > deadline or self._stops > stops:
                break
            self._sleep(POLL_SECONDS)
        for child in children:
            kill_group(child.process)
            self._warden.forget(child.process.pid)

    def forget(self, child: Child) -> None:
        """One that was to run once has ended."""
        self.children.remove(child)
        self._warden.forget(child.process.pid)

    def _start(self, child: Child) -> None:
        child.start()
        ending = child.ending
        self._warden.watch(Charge(child.process.pid, int(ending.number), ending.seconds, ending.rank))

    def _look_after(self, child: Child) -> None:
        if child.due is None:
            if failure := child.failure():
                self._warden.forget(child.process.pid)
                complain(f"{failure}; starting it again in {child.start_later():g} s")
        elif time.monotonic() >= child.due:
            self._start_again(child)

    def _start_again(self, child: Child) -> None:
        try:
            self._start(child)
        except (OSError, StackError) as error:
            complain(f"{child.name} cannot start: {error}; trying again in {child.start_later():g} s")
        else:
            say(f"{child.name} started again")

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stops += 1

    def _sleep(self, seconds: float | None) -> None:
        select.select([self._wake_reader], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)
