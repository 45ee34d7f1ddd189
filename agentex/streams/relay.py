"""Token deltas out of Redis, where agents write them: the stream `task:{task_id}`, one update a `data` field.

One connection reads for all streams of the process (XREAD BLOCK over their keys), one more asks and wakes it
when a key is added. Away, it is tried again; streams go on with what Postgres tells.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from agentex.acp.messages import StreamUpdate
from agentex.database import JsonObject
from agentex.settings import Settings
from agentex.streams.feed import Entry, Feed
from agentex.telemetry.metrics import STREAM_DELTAS, STREAM_REDIS_UP

log = logging.getLogger(__name__)

# Also how long a new key waits where the server's user may not CLIENT UNBLOCK.
_BLOCK_MILLISECONDS = 1_000
_ENTRIES_AT_ONCE = 200
_CONNECT_SECONDS, _ANSWER_SECONDS = 3.0, 5.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.1, 5.0
_UNBLOCK_AGAIN_SECONDS = 0.002
# Before the first entry of a stream.
_BEGINNING = "0-0"
_UPDATE: TypeAdapter[StreamUpdate] = TypeAdapter(StreamUpdate)


class Relay:
    """Reads for the feeds it is given, those that come and go included."""

    def __init__(self, url: str, feeds: Mapping[UUID, Feed]) -> None:
        # An optional extra; settings refuse the URL where it lacks.
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        self._feeds = feeds
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError)
        self._refused: type[Exception] = RedisError

        # redis-py's types are not whole.
        from_url = cast("Callable[..., Any]", Redis.from_url)  # pyright: ignore[reportUnknownMemberType]

        def client(answer_seconds: float) -> Any:
            # A connection of its own, so that it can be woken by its id.
            return from_url(
                url,
                single_connection_client=True,
                protocol=2,
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=answer_seconds,
                retry=Retry(NoBackoff(), 0),
            )

        self._client = client
        self._reading: Any = None
        self._asking: Any = None
        self._anew = asyncio.Event()
        self._filled = asyncio.Event()
        # How often the keys have changed, and which of these changes the open read knows.
        self._wanted = self._known = 0

    async def run(self) -> None:
        """Read until cancelled."""
        wait = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._open()
                wait = _FIRST_RETRY_SECONDS
                await self._follow()
            except self._errors as error:
                log.warning(
                    "Redis is away", extra={"action": "streams.redis_away", "error": type(error).__name__}
                )
            finally:
                STREAM_REDIS_UP.set(0)
                await self.aclose()
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LAST_RETRY_SECONDS)

    @property
    def is_up(self) -> bool:
        """Whether Redis answers."""
        return self._asking is not None

    async def aclose(self) -> None:
        """Close both connections."""
        for client in (self._reading, self._asking):
            if client is not None:
                with suppress(*self._errors):
                    await client.aclose()
        self._reading = self._asking = None

    def look_anew(self) -> None:
        """There is a new feed; the read that is open does not know its key."""
        self._wanted += 1
        self._anew.set()
        self._filled.set()

    async def tails(self, task_ids: Collection[UUID]) -> dict[UUID, str | None]:
        """Where each task's stream ends now; None while Redis is away."""
        found: dict[UUID, str | None] = dict.fromkeys(task_ids)
        if self._asking is None:
            return found
        try:
            pipeline = self._asking.pipeline(transaction=False)
            for task_id in found:
                pipeline.xrevrange(_key(task_id), count=1)
            answers = await pipeline.execute()
        except self._errors:
            return found
        for task_id, entries in zip(found, answers, strict=True):
            found[task_id] = entries[0][0].decode() if entries else _BEGINNING
        return found

    async def between(self, task_id: UUID, after: str, upto: str) -> AsyncGenerator[Entry]:
        """What is kept of a task's updates behind one id, up to another; nothing while Redis is away."""
        while self._asking is not None:
            try:
                answer = await self._asking.xrange(_key(task_id), f"({after}", upto, count=_ENTRIES_AT_ONCE)
            except self._errors:
                return
            for entry in _entries(task_id, answer):
                yield entry
            if len(answer) < _ENTRIES_AT_ONCE:
                return
            after = answer[-1][0].decode()

    async def _open(self) -> None:
        self._reading = self._client(_BLOCK_MILLISECONDS / 1000 + _ANSWER_SECONDS)
        asking = self._client(_ANSWER_SECONDS)
        await asking.ping()
        self._asking = asking
        STREAM_REDIS_UP.set(1)

    async def _follow(self) -> None:
        waker = asyncio.create_task(self._wake(await self._reading.client_id()))
        try:
            while True:
                await self._read_once()
        finally:
            waker.cancel()
            with suppress(asyncio.CancelledError, *self._errors):
                await waker

    async def _read_once(self) -> None:
        self._known = self._wanted
        await self._find_tails()
        places = {_key(task_id): feed.read for task_id, feed in self._feeds.items() if feed.read is not None}
        if not places:
            self._filled.clear()
            await self._filled.wait()
            return
        answer = await self._reading.xread(places, count=_ENTRIES_AT_ONCE, block=_BLOCK_MILLISECONDS)
        for key, entries in answer or ():
            task_id = UUID(key.decode().partition(":")[2])
            feed = self._feeds.get(task_id)
            # One that has ended meanwhile, or was made anew behind these entries, has no use for them.
            if feed is None or feed.read != places[_key(task_id)]:
                continue
            feed.read = entries[-1][0].decode()
            STREAM_DELTAS.inc(len(entries))
            feed.take(_entries(task_id, entries))

    async def _find_tails(self) -> None:
        """Those whose task was watched while Redis was away begin now."""
        unread = [task_id for task_id, feed in self._feeds.items() if feed.read is None]
        for task_id, tail in (await self.tails(unread) if unread else {}).items():
            if tail is None:
                raise ConnectionError("Redis does not answer")
            if (feed := self._feeds.get(task_id)) is not None and feed.read is None:
                feed.read = feed.told = tail

    async def _wake(self, client_id: int) -> None:
        """End the open read whenever it does not know all keys."""
        while True:
            await self._anew.wait()
            self._anew.clear()
            while self._known < self._wanted:
                try:
                    await self._asking.client_unblock(client_id)
                except self._refused as error:
                    log.warning(
                        "Redis refuses CLIENT UNBLOCK; a new stream's first deltas are up to 1 s late",
                        extra={"action": "streams.unblock_refused", "error": type(error).__name__},
                    )
                    return
                await asyncio.sleep(_UNBLOCK_AGAIN_SECONDS)


def open_relay(settings: Settings, feeds: Mapping[UUID, Feed]) -> Relay | None:
    """The relay of AGENTEX_REDIS_URL, which connects when it runs; None without one."""
    return Relay(settings.redis_url.get_secret_value(), feeds) if settings.redis_url is not None else None


def _key(task_id: UUID) -> str:
    return f"task:{task_id}"


def _entries(task_id: UUID, answer: Any) -> list[Entry]:
    """What can be read of Redis' answer; anybody may write anything there."""
    arrived = asyncio.get_running_loop().time()
    found: list[Entry] = []
    for entry_id, fields in answer:
        update = _update(fields.get(b"data") or b"")
        if update is None:
            log.warning("an update in Redis is not of the wire", extra={"action": "streams.redis_garbage"})
            continue
        parent = cast("JsonObject", update.get("parent_task_message") or {})
        if parent.get("task_id", str(task_id)) == str(task_id):
            found.append(
                Entry(entry_id.decode(), update["type"], _message_id(parent.get("id")), update, arrived)
            )
    return found


def _update(data: bytes) -> JsonObject | None:
    try:
        update: Any = from_json(data, allow_inf_nan=False)
        _UPDATE.validate_python(update)
    except (ValueError, ValidationError):
        return None
    return cast("JsonObject", update) if "type" in update else None


def _message_id(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
