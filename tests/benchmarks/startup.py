"""How long ./dev.sh takes until it is ready: in an empty clone (with the install), and again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from agentex.dev.ports import free_port
from tests.support.processes import ManagedProcess

ROOT = Path(__file__).parents[2]
COLD_SECONDS = 600


@dataclass(frozen=True)
class Startup:
    """Seconds from the command until the API says that all is ready; cold is with the install."""

    cold: float
    warm: float


def startup_seconds(directory: Path) -> Startup:
    """Clone this checkout's last commit, start it, stop it, start it again."""
    clone = directory / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    return Startup(_start(clone), _start(clone))


def _start(clone: Path) -> float:
    port = free_port()
    environment: dict[str, str | None] = {
        "AGENTEX_PORT": str(port),
        "AGENTEX_WORKER_PORT": "0",
        "AGENTEX_DATABASE_URL": None,
        "AGENTEX_TEMPORAL_ADDRESS": None,
        # Of this interpreter's own environment, which the clone must not see.
        "PYTHONPATH": None,
        "VIRTUAL_ENV": None,
    }
    stack = ManagedProcess([str(clone / "dev.sh")], environment=environment, log=clone.parent / "dev.log")
    began = time.monotonic()
    with stack:
        stack.wait_until_ready(f"http://127.0.0.1:{port}/readyz", COLD_SECONDS)
        taken = time.monotonic() - began
        os.kill(stack.pid, signal.SIGINT)
        stack.wait(60)
    return taken
