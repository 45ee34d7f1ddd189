"""One client of a stream: what waits to be sent to it, within a bound."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from agentex.streams import frames
from agentex.streams.admission import Admission
from agentex.streams.frames import Frame
from agentex.telemetry.metrics import STREAMS_ENDED

FALLEN_BEHIND = (
    "this reader has fallen behind and its stream ends here; connect again with the last event's id in the "
    "Last-Event-ID header, and it goes on behind that event"
)


class Reason(StrEnum):
    """Why a stream ended."""

    TASK_ENDED = "task_ended"
    TASK_GONE = "task_gone"
    FELL_BEHIND = "fell_behind"
    CLIENT_LEFT = "client_left"
    SHUTDOWN = "shutdown"
    UNAUTHORIZED = "unauthorized"
    FAULT = "fault"


def entry_place(entry_id: str) -> tuple[int, int]:
    """An id of a Redis stream as what it is sorted by."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a message: `done` for those who got its beginning, if its pieces add up; else `full`."""

    message_id: UUID
    full: Frame
    done: tuple[Frame, ...] | None = None


class Reader:
    """What waits for one client; at most `limit_bytes`, or a single larger event."""

    __slots__ = (
        "_limit",
        "_on_end",
        "_queue",
        "_size",
        "_skipped",
        "_started",
        "_waiter",
        "admission",
        "asked_at",
        "ended",
        "pinged",
        "quiet_since",
    )

    def __init__(self, limit_bytes: int, admission: Admission) -> None:
        self.admission = admission
        self._limit = limit_bytes
        self._queue: deque[Frame] = deque()
        self._size = 0
        self._started: set[UUID] = set()
        self._skipped: tuple[int, int] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_end: Callable[[], None] | None = None
        self.ended: Reason | None = None
        self.pinged = False
        # Its credential was good then.
        self.asked_at = self.quiet_since = asyncio.get_running_loop().time()

    def push(self, frame: Frame) -> None:
        """Have it sent; a reader that is too far behind is told so instead, and ended."""
        if self.ended is not None:
            return
        if self._queue and self._size + frame.size > self._limit:
            self.cut(Reason.FELL_BEHIND, FALLEN_BEHIND)
            return
        self._queue.append(frame)
        self._size += frame.size
        self._wake()

    def cut(self, reason: Reason, message: str) -> None:
        """End it at once: nothing that waits is sent, but an error that says why."""
        if self.ended is not None:
            return
        self._queue.clear()
        # Without an id: the client goes on behind the last event that it has got.
        self._queue.append(frames.frame(frames.error(message)))
        self.end(reason)

    def push_piece(self, place: tuple[int, int], frame: Frame) -> None:
        """A piece of a message, by its place in Redis."""
        if self._skipped is None or place > self._skipped:
            self.push(frame)

    def skip_pieces(self, entry_id: str | None) -> None:
        """Its client has got what stands in Redis up to this id, elsewhere."""
        self._skipped = entry_place(entry_id) if entry_id is not None else None

    def push_start(self, message_id: UUID, frame: Frame) -> None:
        """The beginning of a message whose pieces follow."""
        self._started.add(message_id)
        self.push(frame)

    def finish(self, end: Finish) -> None:
        """The end of a message, in the form that fits what this reader has got of it."""
        began = end.message_id in self._started
        self._started.discard(end.message_id)
        for frame in end.done if began and end.done is not None else (end.full,):
            self.push(frame)

    def end(self, reason: Reason) -> None:
        """Nothing follows; what waits is still sent."""
        if self.ended is None:
            self.ended = reason
            STREAMS_ENDED.labels(reason=reason).inc()
            self._wake()
            if self._on_end is not None:
                self._on_end()

    def when_ended(self, call: Callable[[], None] | None) -> None:
        """Have this called when it ends, at once if it has; None forgets it."""
        self._on_end = call
        if call is not None and self.ended is not None:
            call()

    def ping(self) -> None:
        """Have a sign of life sent."""
        self.pinged = True
        self._wake()

    @property
    def waits(self) -> bool:
        """Whether its client has got everything and nothing is being sent to it."""
        return self._waiter is not None

    async def next(self) -> Frame | None:
        """The next event; None for a sign of life, or where `is_over` says so, for the end."""
        while not self._queue:
            if self.ended is not None or self.pinged:
                self.pinged = False
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frame = self._queue.popleft()
        self._size -= frame.size
        return frame

    @property
    def is_over(self) -> bool:
        """Whether it has ended and everything was taken."""
        return self.ended is not None and not self._queue

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
