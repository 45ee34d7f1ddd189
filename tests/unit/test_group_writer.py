"""Writes in groups: who shares a write, who gets which result, and whose fault is whose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agentex.runs.dispatch import GROUP_SIZE, GroupWriter


class Ledger:
    """Squares what it is given, as slowly as the test wants, and fails on request."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.began = asyncio.Semaphore(0)
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def write(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        self.began.release()
        await self.may_write.wait()
        if -1 in items:
            raise OSError("the database is away")
        if -2 in items:
            raise ValueError("cannot be written")
        return [item * item for item in items]


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_gathers_during_a_write_is_written_together() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = GroupWriter(ledger.write)
    first = asyncio.create_task(writer.submit(1))
    await ledger.began.acquire()
    rest = [asyncio.create_task(writer.submit(item)) for item in range(2, 2 + GROUP_SIZE + 3)]
    await settle()
    ledger.may_write.set()
    assert await asyncio.gather(first, *rest) == [item * item for item in range(1, 2 + GROUP_SIZE + 3)]
    assert ledger.groups == [[1], list(range(2, 2 + GROUP_SIZE)), [34, 35, 36]]


async def test_a_lone_item_is_written_at_once_and_again_later() -> None:
    ledger = Ledger()
    writer = GroupWriter(ledger.write)
    assert [await writer.submit(2), await writer.submit(3)] == [4, 9]
    assert ledger.groups == [[2], [3]]


async def test_an_error_reaches_each_caller_of_its_group_and_no_other() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = GroupWriter(ledger.write)
    first = asyncio.create_task(writer.submit(7))
    await ledger.began.acquire()
    group = [asyncio.create_task(writer.submit(item)) for item in (1, -1, 2)]
    await settle()
    ledger.may_write.set()
    found = await asyncio.gather(first, *group, return_exceptions=True)
    assert [str(value) for value in found] == ["49", *["the database is away"] * 3]
    assert await writer.submit(3) == 9


async def test_an_item_that_cannot_be_written_does_not_take_its_neighbours_along() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = GroupWriter(ledger.write)
    first = asyncio.create_task(writer.submit(7))
    await ledger.began.acquire()
    group = [asyncio.create_task(writer.submit(item)) for item in (1, -2, 2)]
    await settle()
    ledger.may_write.set()
    found = await asyncio.gather(first, *group, return_exceptions=True)
    assert [str(value) for value in found] == ["49", "1", "cannot be written", "4"]
    assert ledger.groups == [[7], [1, -2, 2], [1], [-2], [2]]


async def test_a_canceled_caller_does_not_take_its_neighbours_along() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = GroupWriter(ledger.write)
    writing = asyncio.create_task(writer.submit(1))
    await ledger.began.acquire()
    waiting = asyncio.create_task(writer.submit(2))
    await settle()
    neighbour = asyncio.create_task(writer.submit(3))
    await settle()
    writing.cancel()
    waiting.cancel()
    await settle()
    ledger.may_write.set()
    assert await neighbour == 9
    for canceled in (writing, waiting):
        with pytest.raises(asyncio.CancelledError):
            await canceled
    assert ledger.groups == [[1], [2, 3]]


async def test_an_error_that_no_caller_asks_for_any_more_harms_nobody() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = GroupWriter(ledger.write)
    gone = asyncio.create_task(writer.submit(-1))
    await ledger.began.acquire()
    gone.cancel()
    await settle()
    ledger.may_write.set()
    await settle()
    assert await writer.submit(5) == 25
