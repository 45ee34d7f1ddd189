"""A Postgres that hangs: its connections stay open, new ones are accepted by the kernel, and nobody answers.

with frozen(server.postgres):
    ...
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

import psutil

from agentex.dev.postgres import EmbeddedPostgres


@contextmanager
def frozen(postgres: EmbeddedPostgres) -> Generator[None]:
    """SIGSTOP to the postmaster and all its children, and SIGCONT when the block is left."""
    postmaster = psutil.Process(postgres.process.pid)
    # First, so that no child comes later.
    postmaster.suspend()
    children = postmaster.children(recursive=True)
    try:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.suspend()
        yield
    finally:
        for process in [*children, postmaster]:
            with suppress(psutil.NoSuchProcess):
                process.resume()
