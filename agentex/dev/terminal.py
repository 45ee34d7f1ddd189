"""What the person at the terminal reads. A terminal that is gone or full never ends the stack."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO


def say(text: str, end: str = "\n") -> None:
    """To stdout."""
    _print(text, sys.stdout, end)


def complain(text: str) -> None:
    """To stderr, one line that names who speaks."""
    _print(f"agentex dev: {text}", sys.stderr)


def _print(text: str, stream: TextIO, end: str = "\n") -> None:
    with contextlib.suppress(OSError):
        print(text, end=end, file=stream, flush=True)
