"""Watches over a group of children: none may end unnoticed, none may outlive the supervisor.

Signals only set a flag (and wake the loop through a pipe); they are acted upon at `check` and `wait_for`, so
no child can be lost between being started and being written down.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from agentex.dev.errors import StackError
from agentex.dev.processes import POLL_SECONDS, Command, describe_exit, kill_group, send, spawn

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _ignored_for_good(number: signal.Signals) -> bool:
    """`nohup` means it; a shell that ignores SIGINT for what it starts in the background does not."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


class StopRequested(Exception):  # noqa: N818 (no error: somebody is done for today)
    """Ctrl-C, SIGTERM or a closed terminal: end in order."""


@dataclass(frozen=True)
class Child:
    """A process that has to live as long as the stack."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Supervisor:
    """Children in the order of their start, and the stop signals that came in."""

    def __init__(self) -> None:
        self.children: list[Child] = []
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

    def start(self, name: str, command: Command, log: Path) -> Child:
        """Start a child and watch it from now on."""
        return self.adopt(name, spawn(command, log), log)

    def adopt(self, name: str, process: subprocess.Popen[bytes], log: Path) -> Child:
        """Watch a process that was started elsewhere."""
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raises StopRequested after a stop signal, StackError when a child has ended."""
        if self._stops:
            raise StopRequested
        for child in self.children:
            if (code := child.process.poll()) is not None:
                raise StackError(f"{child.name} ended with {describe_exit(code)}; see {child.log}")

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Poll until `condition` holds, checking everything meanwhile. Raises StackError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"{what} did not happen within {seconds:g} s")
            self._sleep(POLL_SECONDS)

    def watch(self) -> None:
        """Wait for the first thing that `check` raises."""
        while True:
            self.check()
            self._sleep(None)

    def finish(self, children: list[Child], number: signal.Signals, seconds: float) -> None:
        """Signal them at once and wait for them together; kill what takes too long, or at a second Ctrl-C."""
        for child in children:
            send(child.process, number)
        stops, deadline = self._stops, time.monotonic() + seconds
        while any(child.process.poll() is None for child in children):
            if time.monotonic() > deadline or self._stops > stops or self.in_a_hurry:
                break
            self._sleep(POLL_SECONDS)
        for child in children:
            kill_group(child.process)

    @property
    def in_a_hurry(self) -> bool:
        """Whether Ctrl-C was pressed twice."""
        return self._stops > 1

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stops += 1

    def _sleep(self, seconds: float | None) -> None:
        select.select([self._wake_reader], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)
