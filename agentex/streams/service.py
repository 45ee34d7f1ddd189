"""One stream: what its client has missed, page by page, then what comes, as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import cast
from uuid import UUID

from agentex.database import DATABASE_ERRORS, is_unavailable
from agentex.errors import Unavailable
from agentex.messages.models import StreamingStatus
from agentex.resources import Resources
from agentex.streams import frames
from agentex.streams.admission import Admission
from agentex.streams.cursor import NOTHING, Cursor, check_known
from agentex.streams.feed import wire_task_row, with_cursors
from agentex.streams.frames import Frame, frame
from agentex.streams.hub import Hub, Joined
from agentex.streams.reader import Reason
from agentex.streams.reads import Found, Position, Scan, scan
from agentex.tasks.models import OPEN_STATUSES, Task

# A page goes out before the next is read, as fast as the client takes it.
PAGE = 200
AWAY = "the stream cannot go on just now; connect again with the last event's id in the Last-Event-ID header"


def hub_of(resources: Resources) -> Hub:
    """The streams of this process."""
    return cast("Hub", resources.streams)


async def open_stream(
    resources: Resources, admission: Admission, task: Task, last_event_id: str | None
) -> TaskStream | None:
    """A stream that has begun: whatever is written from here on comes.

    None for a client that has got all of a task that has ended. Raises InvalidInput for an id that no stream
    gave, Unavailable with too many streams.
    """
    cursor = Cursor.parse(last_event_id) if last_event_id else None
    stream = TaskStream(resources, admission, task.id)
    try:
        await stream.begin(cursor, is_open=task.status in OPEN_STATUSES)
    except BaseException:
        stream.close()
        raise
    if cursor is not None and stream.has_told_all:
        stream.reader.end(Reason.TASK_ENDED)
        stream.close()
        return None
    return stream


class TaskStream:
    """The updates of one task for one client; `close` it whatever happens."""

    def __init__(self, resources: Resources, admission: Admission, task_id: UUID) -> None:
        self._resources = resources
        self._hub = hub_of(resources)
        self._task_id = task_id
        self.reader = self._hub.open(admission)
        # Where the client is; its way from there to now, if it has to catch up; where it was let in.
        self._cursor = Cursor(NOTHING)
        self._behind: Scan | None = None
        self._joined: Joined | None = None

    async def begin(self, cursor: Cursor | None, *, is_open: bool) -> None:
        """Fix where it begins: now, behind the cursor, or, with a task that has ended, at its start."""
        if cursor is None and is_open:
            self._joined = await self._hub.join(self.reader, self._task_id, None)
            if self._joined is not None:
                self._cursor = Cursor(self._joined.cursor.seen, self._joined.cursor.part, self._joined.told)
                return
        self._cursor = cursor or self._cursor
        self.reader.skip_pieces(self._cursor.redis)
        self._behind = await self._page()
        check_known(self._cursor, self._behind.now)

    @property
    def has_told_all(self) -> bool:
        """Whether its client has got everything, and its task has ended."""
        page = self._behind
        if page is None or page.found[0].status is None:
            return False
        has_news = page.found[0].messages or page.task_of(page.found[0], self._cursor)
        return not has_news and self._has_ended(page)

    def close(self) -> None:
        """Leave nothing behind."""
        self._hub.leave(self.reader, self._task_id)

    async def updates(self) -> AsyncGenerator[Frame | None]:
        """Every update; None for a sign of life."""
        yield frame(frames.connected(self._task_id), str(self._cursor))
        if self._behind is not None:
            async with aclosing(self._catch_up(self._behind)) as missed:
                async for told in missed:
                    yield told
            self._behind = None
        while not self.reader.is_over:
            yield await self.reader.next()

    async def _page(self) -> Scan:
        async with self._resources.db.read() as session:
            return await scan(session, [Position(self._task_id, self._cursor)], limit=PAGE)

    async def _catch_up(self, page: Scan) -> AsyncGenerator[Frame]:
        """What the client has missed; then it is let in, or the stream has ended."""
        try:
            while self._joined is None and self.reader.ended is None:
                for told in self._replay(page, page.found[0]):
                    yield told
                if self._is_end(page):
                    return
                is_near = page.is_now(self._cursor)
                self._cursor = self._behind_page(page)
                if is_near:
                    self._joined = await self._hub.join(self.reader, self._task_id, self._cursor)
                if self._joined is None:
                    page = await self._page()
            async with aclosing(self._catch_up_to(self._joined)) as rest:
                async for told in rest:
                    yield told
        except DATABASE_ERRORS as error:
            if not is_unavailable(error):
                raise
            yield self._away()
        except Unavailable:
            yield self._away()

    async def _catch_up_to(self, joined: Joined | None) -> AsyncGenerator[Frame]:
        """What has come until it was let in, and the pieces in Redis of what is still being written."""
        if joined is None:
            return
        if joined.scan is not None and joined.rest is not None:
            for told in self._replay(joined.scan, joined.rest):
                yield told
        after, upto, relay = self._cursor.redis, joined.told, self._hub.relay
        if relay is None or after is None or upto is None:
            return
        async for entry in relay.between(self._task_id, after, upto):
            if entry.kind == "delta" and entry.message_id in joined.feed.open:
                yield frame(entry.update, f"{joined.cursor}/{entry.id}")

    def _replay(self, page: Scan, found: Found) -> Iterator[Frame]:
        """What a page has, each message as it stands."""
        if found.status is None:
            yield frame(frames.error(f"task {self._task_id} does not exist any more"))
            self.reader.end(Reason.TASK_GONE)
            return
        task = page.task_of(found, self._cursor)
        for message, cursor in with_cursors(page, found, self._cursor, more=task is not None):
            begun = message.row["streaming_status"] == StreamingStatus.IN_PROGRESS
            update = (frames.start if begun else frames.full)(frames.wire_message(message.row))
            yield frame(update, self._mark(cursor))
        if task is not None:
            update = {"type": "task_updated", "task": wire_task_row(task)}
            yield frame(update, self._mark(page.behind(self._cursor)))

    def _is_end(self, page: Scan) -> bool:
        """Whether all of a task that has ended has come."""
        if self._has_ended(page):
            self.reader.end(Reason.TASK_ENDED)
        return self.reader.ended is not None

    def _has_ended(self, page: Scan) -> bool:
        return page.is_now(self._cursor) and page.found[0].status not in OPEN_STATUSES

    def _behind_page(self, page: Scan) -> Cursor:
        behind = page.behind(self._cursor)
        return Cursor(behind.seen, behind.part, self._cursor.redis)

    def _mark(self, cursor: Cursor) -> str:
        return str(Cursor(cursor.seen, cursor.part, self._cursor.redis))

    def _away(self) -> Frame:
        self.reader.end(Reason.FAULT)
        return frame(frames.error(AWAY))
