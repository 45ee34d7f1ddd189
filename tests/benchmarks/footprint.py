"""What the processes of the stack cost: memory, and the CPU of doing nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import psutil

from tests.benchmarks.stack import Stack

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Usage:
    """One part's memory in MB (its share of what is shared: PSS) and CPU seconds since it started."""

    megabytes: float
    cpu_seconds: float


def usage(stack: Stack) -> dict[str, Usage]:
    """Each part with its child processes."""
    return {part: _of(pid) for part, pid in stack.pids.items()}


def total_megabytes(parts: dict[str, Usage]) -> float:
    """All parts together."""
    return sum(part.megabytes for part in parts.values())


async def idle_cpu_an_hour(stack: Stack, seconds: float) -> dict[str, float]:
    """CPU seconds that an hour of doing nothing costs each part, from a shorter look."""
    before = usage(stack)
    await asyncio.sleep(seconds)
    after = usage(stack)
    scale = SECONDS_AN_HOUR / seconds
    return {part: (after[part].cpu_seconds - before[part].cpu_seconds) * scale for part in after}


def _of(pid: int) -> Usage:
    parent = psutil.Process(pid)
    family = [parent, *parent.children(recursive=True)]
    # A parent's time includes that of children that have ended and were waited for: Postgres's connections.
    ended = parent.cpu_times()
    cpu = ended.children_user + ended.children_system
    megabytes = 0.0
    for process in family:
        try:
            times = process.cpu_times()
            megabytes += process.memory_full_info().pss / 1e6
        except psutil.NoSuchProcess:
            continue
        cpu += times.user + times.system
    return Usage(megabytes, cpu)
