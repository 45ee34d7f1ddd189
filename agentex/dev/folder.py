"""The folder of one dev stack, `.agentex/` by default: `lock`, `secret_key`, the ports of
Temporal and Redis, `logs/` and `postgres/`.

One stack at a time: the supervisor and its warden hold the lock, so it is free when the last child has ended.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

from agentex.dev.errors import StackError
from agentex.dev.ports import free_port, port_is_free
from agentex.dev.postgres_home import remove_cluster
from agentex.dev.processes import POLL_SECONDS
from agentex.dev.terminal import say
from agentex.dev.warden import birth

# A warden stops services in 10 s, Temporal at once and Postgres in 20 s.
_WARDEN_SECONDS = 40
MAX_PORT = 65_535


@contextlib.contextmanager
def only_stack(directory: Path) -> Generator[int]:
    """Hold the folder's lock; gives its descriptor. Raises StackError when another stack runs there.

    When the last stack there was killed, this waits until its warden has stopped what it started.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+") as file:
        deadline: float | None = None
        while not _try_lock(file):
            _refuse_living(file, directory, deadline)
            if deadline is None:
                say(f"The stack on {directory} was killed; waiting until its parts have stopped")
                deadline = time.monotonic() + _WARDEN_SECONDS
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_living(file: TextIO, directory: Path, deadline: float | None) -> None:
    file.seek(0)
    pid = file.read().strip()
    if not pid.isdigit() or birth(int(pid)) or (deadline and time.monotonic() > deadline):
        raise StackError(
            f"another stack (process {pid}) runs on {directory}; "
            "stop it, or give another folder with --data-dir"
        )


def secret_key(directory: Path) -> str:
    """The stack's AGENTEX_SECRET_KEY, made at its first start; only its user may read it."""
    path = directory / "secret_key"
    if not path.exists():
        made = path.with_name("secret_key.new")
        made.unlink(missing_ok=True)
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
        # Whole or not at all, also when the disk is full.
        made.rename(path)
    return path.read_text().strip()


def kept_port(directory: Path, name: str) -> int:
    """The port that this part had at its last start, if it is free; else another, kept from now on.

    Agents of the user's own know the part by it.
    """
    path = directory / f"{name}.port"
    with contextlib.suppress(OSError, ValueError):
        port = int(path.read_text())
        if 0 < port <= MAX_PORT and port_is_free(port):
            return port
    port = free_port()
    path.write_text(f"{port}\n")
    return port


def reset(directory: Path, logs: list[Path]) -> None:
    """Remove the embedded Postgres' data and these logs, and nothing else; the caller holds the lock.

    Raises StackError when a Postgres still runs on it or when its place holds something else.
    """
    removed = remove_cluster(directory / "postgres")
    for log in logs:
        for path in (log, log.with_name(f"{log.name}.1")):
            path.unlink(missing_ok=True)
    for place in removed:
        say(f"Removed {place}")
