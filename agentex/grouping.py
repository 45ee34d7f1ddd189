"""Writes in groups: what waits while a write is under way is carried out together, by the next one. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Grouping:
    """When a group is written, and how much it takes.

    gather_seconds: how long a write waits for company; 0 writes a lone item at once.
    patience_seconds: a write that takes longer does not hold up those behind it; None always does.
    """

    size: int
    gather_seconds: float = 0
    patience_seconds: float | None = None


class GroupWriter(Generic[Item, Result]):
    """Gathers items while a write is under way and writes them together; each caller gets its result.

    `write` returns a result for each item, in their order. When it fails with an error that is not
    everybody's, such as an outage, each item of the group is written alone and gets its own result or error.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        is_everybodys: Callable[[Exception], bool],
        grouping: Grouping,
    ) -> None:
        self._write = write
        self._is_everybodys = is_everybodys
        self._grouping = grouping
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._loop: asyncio.Task[None] | None = None
        # Also those that are waited for no longer.
        self._under_way: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """Write one item with whatever else waits; raises what the write raised.

        A caller that is canceled takes neither its item back nor its neighbours'.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._loop is None:
            self._loop = asyncio.create_task(self._write_all())
        return await future

    async def _write_all(self) -> None:
        size, gather_seconds = self._grouping.size, self._grouping.gather_seconds
        try:
            while self._waiting:
                if gather_seconds and len(self._waiting) < size:
                    await asyncio.sleep(gather_seconds)
                group, self._waiting = self._waiting[:size], self._waiting[size:]
                writing = asyncio.create_task(self._write_group(group))
                self._under_way.add(writing)
                writing.add_done_callback(self._under_way.discard)
                await asyncio.wait((writing,), timeout=self._grouping.patience_seconds)
        finally:
            self._loop = None
            # None, unless the event loop ends.
            left, self._waiting = self._waiting, []
            for _, future in left:
                future.cancel()

    async def _write_group(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
            written = list(zip(group, results, strict=True))
        except Exception as error:  # noqa: BLE001 - handed on to each caller, who decides
            if len(group) > 1 and not self._is_everybodys(error):
                # At once, for one that waits for a lock must not hold up its neighbours either.
                await asyncio.gather(*[self._write_group([member]) for member in group])
                return
            for _, future in group:
                # A caller that was canceled meanwhile no longer asks.
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            for _, future in group:
                future.cancel()
            raise
        else:
            for (_, future), result in written:
                if not future.done():
                    future.set_result(result)
