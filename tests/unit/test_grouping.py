"""Writes in groups: who shares a write, who gets which result, and whose fault is whose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agentex.grouping import Grouping, GroupWriter

GROUP_SIZE = 32


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


def writer_of(ledger: Ledger, **options: float) -> GroupWriter[int, int]:
    return GroupWriter(
        ledger.write, lambda error: isinstance(error, OSError), Grouping(GROUP_SIZE, **options)
    )


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_gathers_during_a_write_is_written_together() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = writer_of(ledger)
    first = asyncio.create_task(writer.submit(1))
    await ledger.began.acquire()
    rest = [asyncio.create_task(writer.submit(item)) for item in range(2, 2 + GROUP_SIZE + 3)]
    await settle()
    ledger.may_write.set()
    assert await asyncio.gather(first, *rest) == [item * item for item in range(1, 2 + GROUP_SIZE + 3)]
    assert ledger.groups == [[1], list(range(2, 2 + GROUP_SIZE)), [34, 35, 36]]


async def test_a_lone_item_is_written_at_once_and_again_later() -> None:
    ledger = Ledger()
    writer = writer_of(ledger)
    assert [await writer.submit(2), await writer.submit(3)] == [4, 9]
    assert ledger.groups == [[2], [3]]


async def test_a_write_may_wait_for_company() -> None:
    ledger = Ledger()
    writer = writer_of(ledger, gather_seconds=0.02)
    first = asyncio.create_task(writer.submit(2))
    await settle()
    assert (await writer.submit(3), await first, ledger.groups) == (9, 4, [[2, 3]])


async def test_a_write_that_hangs_holds_up_nobody_for_long() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = writer_of(ledger, patience_seconds=0.02)
    hanging = asyncio.create_task(writer.submit(2))
    await ledger.began.acquire()
    behind = asyncio.create_task(writer.submit(3))
    await ledger.began.acquire()
    assert ([hanging.done(), behind.done()], ledger.groups) == ([False, False], [[2], [3]])
    ledger.may_write.set()
    assert await asyncio.gather(hanging, behind) == [4, 9]


async def test_a_writer_is_asked_again_after_its_event_loop_has_ended() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = writer_of(ledger)
    asked = [asyncio.create_task(writer.submit(item)) for item in (1, 2)]
    await ledger.began.acquire()
    # As asyncio.run does: whatever is still there is canceled, in no order that matters.
    for task in asyncio.all_tasks() - {asyncio.current_task(), *asked}:
        task.cancel()
    ended = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert [type(error) for error in ended] == [asyncio.CancelledError] * 2
    ledger.may_write.set()
    assert await writer.submit(3) == 9


async def test_an_error_reaches_each_caller_of_its_group_and_no_other() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = writer_of(ledger)
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
    writer = writer_of(ledger)
    first = asyncio.create_task(writer.submit(7))
    await ledger.began.acquire()
    group = [asyncio.create_task(writer.submit(item)) for item in (1, -2, 2)]
    await settle()
    ledger.may_write.set()
    found = await asyncio.gather(first, *group, return_exceptions=True)
    assert [str(value) for value in found] == ["49", "1", "cannot be written", "4"]
    assert ledger.groups == [[7], [1, -2, 2], [1], [-2], [2]]


async def test_one_that_has_to_wait_alone_does_not_hold_up_its_neighbours() -> None:
    go_on = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            raise ValueError("one of them waits for a lock")
        if items == [2]:
            await go_on.wait()
        return list(items)

    writer = GroupWriter(write, lambda _: False, Grouping(GROUP_SIZE))
    first, *rest = [asyncio.create_task(writer.submit(item)) for item in (1, 2, 3)]
    assert (await first, await rest[1], rest[0].done()) == (1, 3, False)
    go_on.set()
    assert await rest[0] == 2


async def test_a_canceled_caller_does_not_take_its_neighbours_along() -> None:
    ledger = Ledger()
    ledger.may_write.clear()
    writer = writer_of(ledger)
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
    writer = writer_of(ledger)
    gone = asyncio.create_task(writer.submit(-1))
    await ledger.began.acquire()
    gone.cancel()
    await settle()
    ledger.may_write.set()
    await settle()
    assert await writer.submit(5) == 25
