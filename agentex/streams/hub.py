"""All streams of one process: one listening connection, one loop that reads what is new for all of them.

A trigger tells of a write to a watched task; the loop then reads all that was told meanwhile in one
statement. Nothing is held open for a stream that is idle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from agentex.database import DATABASE_ERRORS, Database, Listener, is_unavailable
from agentex.errors import DatabaseUnavailable, Unavailable
from agentex.settings import Settings
from agentex.streams.admission import Admission, Standing, ask
from agentex.streams.cursor import Cursor
from agentex.streams.feed import Feed, new_feed
from agentex.streams.reader import Reader, Reason
from agentex.streams.reads import Found, Position, Scan, forget_listeners, scan, unwatch, watch
from agentex.streams.relay import Relay, open_relay
from agentex.tasks.models import OPEN_STATUSES
from agentex.telemetry.metrics import STREAM_LISTENER_UP, STREAMS_OPEN, UNEXPECTED_ERRORS

log = logging.getLogger(__name__)

CHANNEL = "agentex_streams"
# What one statement reads for all streams together; what is left comes with the next.
SCAN_LIMIT = 1_000
# A connection that was cut in silence is noticed by then.
PROBE_SECONDS = 15.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.1, 5.0
# A stream that cannot begin within this is refused; the client comes again.
_JOIN_SECONDS = 10.0
# How long a stream goes on whose credential nobody can judge, in pings.
UNASKED_INTERVALS = 8
REFUSED = "the credential of this stream opens nothing any more: it has expired or was revoked"
UNASKED = (
    "whoever judges the credential of this stream does not answer; connect again with the last event's id in "
    "the Last-Event-ID header"
)
_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 0.02, 5.0


@dataclass(frozen=True)
class Joined:
    """Where a reader's live updates begin: at the feed's cursor, in Redis behind `told`.

    `rest` is what has come between the reader's cursor and that.
    """

    feed: Feed
    cursor: Cursor
    told: str | None
    scan: Scan | None = None
    rest: Found | None = None


@dataclass(eq=False)
class _Join:
    """A reader that waits to be let in; `joined` gets None where it has to read on by itself first."""

    reader: Reader
    task_id: UUID
    cursor: Cursor | None
    joined: asyncio.Future[Joined | None]


@dataclass(eq=False)
class _Turn:
    """What one turn of the loop reads."""

    joins: list[_Join]
    dirty: set[UUID]
    watched: set[UUID]
    tails: dict[UUID, str | None] = field(default_factory=dict[UUID, str | None])


class Hub:
    """Starts with its first stream, and stays until it is closed."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        # The watched tasks, and all readers, those that still catch up included.
        self.feeds: dict[UUID, Feed] = {}
        self.readers: set[Reader] = set()
        self._joins: list[_Join] = []
        self._dirty: set[UUID] = set()
        self._watched: set[UUID] = set()
        self._work = asyncio.Event()
        # The Postgres process that tells this one, while there is one.
        self.listener: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.relay: Relay | None = open_relay(settings, self.feeds)

    def open(self, admission: Admission) -> Reader:
        """A reader; `leave` closes it. Raises Unavailable when the process has as many as it may have."""
        if self._closed:
            raise Unavailable("this process is stopping; connect again")
        if len(self.readers) >= self._settings.streams_per_process:
            raise Unavailable(
                f"this process has {len(self.readers)} streams open and takes no more "
                "(AGENTEX_STREAMS_PER_PROCESS); connect again later"
            )
        # Those that a fault is ending still close their connections.
        if all(task.cancelling() for task in self._tasks):
            self._start()
        reader = Reader(self._settings.stream_buffer_bytes, admission)
        self.readers.add(reader)
        STREAMS_OPEN.set(len(self.readers))
        return reader

    async def join(self, reader: Reader, task_id: UUID, cursor: Cursor | None) -> Joined | None:
        """Let a reader in that has got all up to the cursor, or (None) that begins now.

        Returns None where it has to read on by itself first: the task has ended, or there is much to read.
        Raises Unavailable when Postgres does not answer in time, and when a fault of ours ends all streams.
        """
        feed = self.feeds.get(task_id)
        if cursor is None and feed is not None:
            feed.readers.add(reader)
            return Joined(feed, feed.cursor, feed.told)
        join = _Join(reader, task_id, cursor, asyncio.get_running_loop().create_future())
        self._joins.append(join)
        self._work.set()
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                return await join.joined
        except TimeoutError:
            raise DatabaseUnavailable from None
        finally:
            if join in self._joins:
                self._joins.remove(join)

    def leave(self, reader: Reader, task_id: UUID) -> None:
        """Forget a reader, and the task when nobody else reads it."""
        reader.end(Reason.CLIENT_LEFT)
        self.readers.discard(reader)
        STREAMS_OPEN.set(len(self.readers))
        feed = self.feeds.get(task_id)
        if feed is not None and reader in feed.readers:
            feed.readers.remove(reader)
            if not feed.readers:
                self._drop(feed)

    def end_all(self, reason: Reason) -> None:
        """End every stream once what waits is sent; the clients connect again."""
        for reader in self.readers:
            reader.end(reason)

    def refuse(self) -> None:
        """The process is about to stop: end all streams and open no more."""
        self._closed = True
        self.end_all(Reason.SHUTDOWN)

    async def aclose(self) -> None:
        """Stop everything."""
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for feed in self.feeds.values():
            feed.close()
        self.feeds.clear()
        if self.relay is not None:
            await self.relay.aclose()

    def _start(self) -> None:
        works = [self._listen(), self._read(), self._ping()]
        if self.relay is not None:
            works.append(self.relay.run())
        for work in works:
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """None of them ends by itself: a fault of ours ends the streams, and the next one starts anew."""
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        UNEXPECTED_ERRORS.labels(where="streams").inc()
        log.error(
            "streams ended in an error nobody foresaw", exc_info=error, extra={"action": "streams.failed"}
        )
        self.end_all(Reason.FAULT)
        for join in self._joins:
            if not join.joined.done():
                join.joined.set_exception(Unavailable("streams of this process had a fault; connect again"))
        for other in self._tasks:
            other.cancel()

    # What is told, and by which connection.

    async def _listen(self) -> None:
        wait = _FIRST_RETRY_SECONDS
        while True:
            listener, lost = Listener(self._settings), asyncio.Event()
            try:
                process = await listener.open(CHANNEL, self.on_told, lost.set)
                async with self._db.single() as session:
                    await forget_listeners(session, process)
                self._heard(process)
                wait = _FIRST_RETRY_SECONDS
                while not lost.is_set():
                    await self._until_lost(listener, lost)
            except DATABASE_ERRORS as error:
                if not is_unavailable(error):
                    raise
                log.warning(
                    "the listening connection is away",
                    extra={"action": "streams.listener_away", "error": type(error).__name__},
                )
            finally:
                self.listener = None
                STREAM_LISTENER_UP.set(0)
                await listener.drop()
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LAST_RETRY_SECONDS)

    def _heard(self, process: int) -> None:
        """From here on all is told; what was written before is looked for."""
        self.listener = process
        STREAM_LISTENER_UP.set(1)
        self._watched.clear()
        self._dirty.update(self.feeds)
        self._work.set()

    async def _until_lost(self, listener: Listener, lost: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await lost.wait()
        except TimeoutError:
            await listener.probe()

    def on_told(self, payload: str) -> None:
        """Postgres tells of a write to a task that is watched, by this process or another."""
        task_id = UUID(payload)
        # Also of a task whose feed is only being made: what it is told now its scan may just have missed.
        if task_id in self._watched:
            self._look(task_id)

    def _look(self, task_id: UUID) -> None:
        self._dirty.add(task_id)
        self._work.set()

    # Reading what is new.

    async def _read(self) -> None:
        wait = _FIRST_RETRY_SECONDS
        while True:
            await self._work.wait()
            self._work.clear()
            if self.listener is None:
                continue
            turn = _Turn(list(self._joins), set(self._dirty), set())
            self._dirty.clear()
            try:
                listener = self.listener
                await self._turn(turn, listener)
                if self.listener != listener:
                    # Another connection listens by now, and what was watched is told to the one before.
                    self._watched -= turn.watched
                    self._work.set()
                wait = _FIRST_RETRY_SECONDS
            except DATABASE_ERRORS as error:
                if not is_unavailable(error):
                    raise
                self._dirty |= turn.dirty | (turn.watched & self.feeds.keys())
                self._watched -= turn.watched
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LAST_RETRY_SECONDS)
                self._work.set()

    async def _turn(self, turn: _Turn, listener: int) -> None:
        """One watch, if there are new tasks, and one scan."""
        wanted = self.feeds.keys() | {join.task_id for join in turn.joins}
        await self._watch(turn, listener, wanted)
        fresh = [join.task_id for join in turn.joins if join.task_id not in self.feeds]
        if self.relay is not None and fresh:
            turn.tails = await self.relay.tails(set(fresh))
        places = self._places(turn)
        if not places:
            return
        async with self._db.read() as session:
            found = await scan(
                session,
                [position for _, position in places],
                limit=SCAN_LIMIT,
                open_ids=self.relay is not None,
            )
        by_place = {place: one for (place, _), one in zip(places, found.found, strict=True)}
        self._apply(turn, found, by_place)
        self._admit(turn, found, by_place)

    async def _watch(self, turn: _Turn, listener: int, wanted: Iterable[UUID]) -> None:
        turn.watched = set(wanted) - self._watched
        gone = self._watched - set(wanted)
        if not turn.watched and not gone:
            return
        async with self._db.single() as session:
            if turn.watched:
                self._watched |= turn.watched
                await watch(session, listener, turn.watched)
            if gone:
                await unwatch(session, listener, gone)
                self._watched -= gone

    def _places(self, turn: _Turn) -> list[tuple[UUID | _Join, Position]]:
        """Where to read: the tasks that were told of, those that readers join, and these readers."""
        joined = {join.task_id for join in turn.joins}
        places: list[tuple[UUID | _Join, Position]] = []
        for task_id in joined | (turn.dirty | turn.watched) & self.feeds.keys():
            feed = self.feeds.get(task_id)
            places.append((task_id, Position(task_id, feed.cursor if feed is not None else None)))
        places += [(join, Position(join.task_id, join.cursor)) for join in turn.joins if join.cursor]
        return places

    def _apply(self, turn: _Turn, found: Scan, by_place: dict[UUID | _Join, Found]) -> None:
        for task_id, one in by_place.items():
            if not isinstance(task_id, UUID):
                continue
            feed = self.feeds.get(task_id)
            if feed is None:
                continue
            if (reason := feed.apply(found, one)) is not None:
                self._end(feed, reason)
                continue
            if feed.cursor != Cursor(found.now):
                self._look(task_id)
            self._settle(feed, found, is_new=task_id in turn.watched)

    def _settle(self, feed: Feed, found: Scan, *, is_new: bool) -> None:
        """Look again until all have ended that may have written before the watch was seen."""
        if is_new:
            feed.silent = max(found.now.running, default=0)
            feed.look_again_seconds = _FIRST_LOOK_SECONDS
        elif found.now.xmin > feed.silent:
            feed.silent = 0
        if feed.silent and feed.next_look is None:
            later = asyncio.get_running_loop().call_later
            feed.next_look = later(feed.look_again_seconds, self._look_again, feed)
            feed.look_again_seconds = min(2 * feed.look_again_seconds, _LAST_LOOK_SECONDS)

    def _look_again(self, feed: Feed) -> None:
        feed.next_look = None
        self._look(feed.task_id)

    def _admit(self, turn: _Turn, found: Scan, by_place: dict[UUID | _Join, Found]) -> None:
        """Let in whom this scan has brought up to its task's feed: all of them are at one cursor now."""
        for join in turn.joins:
            if join.joined.done():
                continue
            task, feed = by_place[join.task_id], self.feeds.get(join.task_id)
            is_behind = feed is not None and feed.cursor != Cursor(found.now)
            if not found.complete or is_behind or task.status not in OPEN_STATUSES:
                join.joined.set_result(None)
                continue
            if feed is None:
                if task.task is None:
                    # Its last reader left while we read: the next turn makes it anew.
                    self._work.set()
                    continue
                feed = new_feed(join.task_id, Cursor(found.now), task, turn.tails.get(join.task_id))
                self.feeds[join.task_id] = feed
                self._settle(feed, found, is_new=True)
            rest = by_place.get(join)
            if rest is not None:
                feed.note_ended(rest.messages)
            feed.readers.add(join.reader)
            join.joined.set_result(Joined(feed, feed.cursor, feed.told, found, rest))
        if self.relay is not None and turn.tails:
            self.relay.look_anew()

    def _end(self, feed: Feed, reason: Reason) -> None:
        for reader in feed.readers:
            reader.end(reason)
        feed.readers.clear()
        self._drop(feed)

    def _drop(self, feed: Feed) -> None:
        feed.close()
        self.feeds.pop(feed.task_id, None)
        self._work.set()

    async def _ping(self) -> None:
        """A sign of life for each reader that has got nothing for the interval."""
        interval = self._settings.stream_ping_seconds
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, interval / 4))
            before = loop.time() - interval
            quiet = [reader for reader in self.readers if reader.waits and reader.quiet_since <= before]
            # Those that are never quiet, too; and before the sign of life, so that a revoked key gets none.
            await self._ask_again({*quiet, *[one for one in self.readers if one.asked_at <= before]})
            for reader in quiet:
                if reader.ended is None:
                    reader.ping()

    async def _ask_again(self, readers: Collection[Reader]) -> None:
        """End the streams whose credentials open nothing any more, or cannot be asked for any longer."""
        asked_at = asyncio.get_running_loop().time()
        standing = await ask([reader.admission for reader in readers])
        give_up = asked_at - UNASKED_INTERVALS * self._settings.stream_ping_seconds
        for reader in readers:
            match standing[reader.admission.credential]:
                case Standing.GOOD:
                    reader.asked_at = asked_at
                case Standing.REFUSED:
                    reader.cut(Reason.UNAUTHORIZED, REFUSED)
                case Standing.UNKNOWN if reader.asked_at <= give_up:
                    reader.cut(Reason.UNAUTHORIZED, UNASKED)
                case Standing.UNKNOWN:
                    pass
