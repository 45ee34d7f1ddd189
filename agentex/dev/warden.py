"""Stops what a supervisor started when the supervisor is killed.

    python -I -S warden.py

The supervisor holds the other end of this process's stdin and writes down there whom it has started and seen
end. Stdin closes when the supervisor ends, in whatever way: what still lives then is stopped here, rank by
rank, politely first. On Linux the children have been told of their parent's death already (child.py); this
stops those that did not listen, and works on macOS too. Run as a file of its own, with the standard library
only, so that it is quickly there and small.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Charge:
    """A process, and how it is stopped: `signal`, SIGKILL after `seconds`, lower ranks first."""

    pid: int
    signal: int
    seconds: float
    rank: int

    def line(self) -> str:
        """How the supervisor writes it down."""
        return f"started {self.pid} {self.signal} {self.seconds} {self.rank}\n"


class Warden:
    """The supervisor's side: started with the first charge, and again should it be killed itself."""

    def __init__(self, keep_descriptors: Sequence[int] = ()) -> None:
        self._keep_descriptors = keep_descriptors
        self._charges: dict[int, Charge] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None before the first charge."""
        return self._process.pid if self._process else None

    def watch(self, charge: Charge) -> None:
        """Stop it when the supervisor ends before `forget` is called."""
        self._charges[charge.pid] = charge
        if not self.ensure():
            self._tell(charge.line())

    def forget(self, pid: int) -> None:
        """It has ended."""
        if self._charges.pop(pid, None):
            self._tell(f"ended {pid}\n")

    def ensure(self) -> bool:
        """Start a warden when there is none, and tell it everything; whether that was so."""
        if self._process and self._process.poll() is None:
            return False
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tuple(self._keep_descriptors),
        )
        for charge in self._charges.values():
            self._tell(charge.line())
        return True

    def close(self) -> None:
        """Let it end: it stops what it was not told to forget."""
        if self._process and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process and self._process.stdin:
            # A warden that is gone is replaced by `ensure`, and the new one is told.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


def birth(pid: int) -> str | None:
    """What tells this process from a later one of the same id; None when it has ended."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in {"Z", "X"} else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "somebody else's"
    return "alive"


def main(lines: Iterable[str]) -> None:
    """Write down what the supervisor says until it ends; then stop what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    charges: dict[Charge, str] = {}
    for line in lines:
        word, pid, *rest = line.split()
        if word == "started" and (born := birth(int(pid))):
            charges[Charge(int(pid), int(rest[0]), float(rest[1]), int(rest[2]))] = born
        elif word == "ended":
            charges = {charge: born for charge, born in charges.items() if charge.pid != int(pid)}
    if charges:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("agentex dev was killed; stopping what it started", file=sys.stderr, flush=True)
    for rank in sorted({charge.rank for charge in charges}):
        _stop({charge: born for charge, born in charges.items() if charge.rank == rank})


def _stop(charges: dict[Charge, str]) -> None:
    def living() -> list[Charge]:
        return [charge for charge, born in charges.items() if birth(charge.pid) == born]

    for charge in living():
        with contextlib.suppress(OSError):
            os.kill(charge.pid, charge.signal)
    deadline = time.monotonic() + max(charge.seconds for charge in charges)
    while living() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for charge in living():
        with contextlib.suppress(OSError):
            os.killpg(charge.pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.stdin)
