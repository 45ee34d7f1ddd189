"""What the person at the terminal reads. A terminal that is gone or full never ends the stack."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO


def say(text: str) -> None:
    """To stdout."""
    _print(text, sys.stdout)


def complain(text: str) -> None:
    """To stderr, one line that names who speaks."""
    _print(f"agentex dev: {text}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)
