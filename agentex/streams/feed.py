"""A watched task in one process: what Postgres and Redis tell of it, merged, for all of its readers.

Postgres says which messages there are and when they end; Redis only what they say meanwhile. So each message
has one beginning and one end, whichever of the two is faster: a piece waits for the beginning of its message,
an end in Redis for the row that its agent writes behind it, and both not longer than HOLD_SECONDS. What an
agent's pieces do not add up to comes as the whole message.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from agentex.database import JsonObject
from agentex.messages.models import StreamingStatus
from agentex.streams import frames
from agentex.streams.cursor import Cursor, Part
from agentex.streams.frames import Frame, frame
from agentex.streams.reader import Finish, Reader, Reason, entry_place
from agentex.streams.reads import Found, MessageRow, Scan
from agentex.tasks.models import OPEN_STATUSES, TaskRead

# An agent writes to Redis right behind, or right before, its request to us; a message that exists in Redis
# alone is late by this much.
HOLD_SECONDS = 1.0
# Ends that are remembered, so that their echo in Redis is known.
_KEPT_ENDS = 4_096


@dataclass(slots=True)
class Entry:
    """One update in Redis; without a message id it belongs to no message that we could know."""

    id: str
    kind: str
    message_id: UUID | None
    update: JsonObject
    arrived: float


@dataclass(slots=True)
class _Open:
    """A message being written; `text` is what was told of it, None where that is not known.

    `content` is what it began with.
    """

    text: list[str] | None
    content: JsonObject = field(default_factory=dict[str, Any])

    def told(self) -> int | None:
        """The hash of the content that its pieces make, None where that is not known."""
        if self.text is None:
            return None
        return _content_hash({**self.content, "content": "".join(self.text)})


@dataclass(eq=False)
class Feed:
    """One task's merged updates and their readers."""

    task_id: UUID
    cursor: Cursor
    # The hash of the task as it was last told.
    shown: int
    open: dict[UUID, _Open]
    # How far Redis is read; None without Redis, or while it is away.
    read: str | None = None
    # How far what was read has been told: what is held back has not.
    told: str | None = None
    readers: set[Reader] = field(default_factory=set)
    # Transactions up to this one may have written before the watch was seen: they tell nobody.
    silent: int = 0
    look_again_seconds: float = 0
    next_look: asyncio.TimerHandle | None = None
    _ended: OrderedDict[UUID, int | None] = field(default_factory=OrderedDict[UUID, int | None])
    _inbox: deque[Entry] = field(default_factory=deque[Entry])
    _timer: asyncio.TimerHandle | None = None

    def mark(self, cursor: Cursor | None = None) -> str:
        """What to give a reader as the id of an event; of the newest, unless a cursor is given."""
        text = str(cursor or self.cursor)
        return f"{text}/{self.told}" if self.told is not None else text

    def apply(self, scan: Scan, found: Found) -> Reason | None:
        """Tell what Postgres has; returns why the task's streams are over, if they are."""
        if found.status is None:
            self._push_all(frame(frames.error(f"task {self.task_id} does not exist any more")))
            return Reason.TASK_GONE
        before, behind = self.cursor, scan.behind(self.cursor)
        task = _changed_task(scan.task_of(found, before), self.shown)
        for message, cursor in with_cursors(scan, found, before, more=task is not None):
            self._tell(message, self.mark(cursor))
        self.cursor = behind
        if task is not None:
            self.shown = task_hash(task)
            self._push_all(frame({"type": "task_updated", "task": task}, self.mark()))
        self.drain()
        is_over = found.status not in OPEN_STATUSES and scan.is_now(before)
        return Reason.TASK_ENDED if is_over else None

    def take(self, entries: Sequence[Entry]) -> None:
        """Tell what Redis has, as far as Postgres has told of it."""
        self._inbox.extend(entries)
        self.drain()

    def note_ended(self, messages: Sequence[MessageRow]) -> None:
        """These were told whole to a reader that has just come: their echo in Redis is no news."""
        for message in messages:
            if message.row["streaming_status"] != StreamingStatus.IN_PROGRESS:
                self._remember(message.id, _content_hash(message.row["content"]))

    def close(self) -> None:
        """Leave nothing behind."""
        for timer in (self._timer, self.next_look):
            if timer is not None:
                timer.cancel()
        self._inbox.clear()

    def drain(self) -> None:
        """Tell what need not wait any longer, in the order of Redis."""
        loop = asyncio.get_running_loop()
        while self._inbox:
            entry = self._inbox[0]
            if self._must_wait(entry):
                due = entry.arrived + HOLD_SECONDS
                if loop.time() < due:
                    self._look_at(due)
                    return
                self._tell_alone(self._take_first())
            else:
                self._relay(self._take_first())

    def _take_first(self) -> Entry:
        entry = self._inbox.popleft()
        self.told = entry.id
        return entry

    def _look_at(self, instant: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(instant, self.drain)

    def _must_wait(self, entry: Entry) -> bool:
        if entry.message_id is None or entry.message_id in self._ended:
            return False
        return entry.kind in {"done", "full"} or entry.message_id not in self.open

    def _relay(self, entry: Entry) -> None:
        """A piece of a message that Postgres knows; its beginning and its end come from there."""
        message_id = entry.message_id
        if message_id is None:
            self._push_piece(entry)
        elif entry.kind == "delta" and message_id not in self._ended:
            self._add_text(self.open[message_id], entry.update)
            self._push_piece(entry)

    def _tell_alone(self, entry: Entry) -> None:
        """What Postgres has not told of in time."""
        assert entry.message_id is not None  # noqa: S101 - such entries never wait
        told = frame(entry.update, self.mark())
        if entry.kind in {"done", "full"}:
            begun = self.open.pop(entry.message_id, None)
            pieces = begun.told() if begun is not None and entry.kind == "done" else None
            self._remember(entry.message_id, pieces)
            for reader in self.readers:
                reader.finish(Finish(entry.message_id, told, (told,)))
            return
        self.open[entry.message_id] = _Open(None)
        if entry.kind == "delta":
            self._push_piece(entry)
            return
        for reader in self.readers:
            reader.push_start(entry.message_id, told)

    def _add_text(self, begun: _Open, update: JsonObject) -> None:
        delta = update.get("delta")
        if begun.text is None or not isinstance(delta, dict):
            return
        text = cast("JsonObject", delta).get("text_delta")
        if isinstance(text, str):
            begun.text.append(text)

    def _tell(self, message: MessageRow, mark: str) -> None:
        content = message.row["content"]
        if message.row["streaming_status"] == StreamingStatus.IN_PROGRESS:
            self._ended.pop(message.id, None)
            if message.id not in self.open:
                text = [content["content"]] if content["type"] == "text" else None
                self.open[message.id] = _Open(text, content)
                told = frame(frames.start(frames.wire_message(message.row)), mark)
                for reader in self.readers:
                    reader.push_start(message.id, told)
            return
        # What Redis has of it by now comes before its end.
        self.drain()
        begun, known = self.open.pop(message.id, None), _content_hash(content)
        is_told = message.id in self._ended and self._ended[message.id] in {known, None}
        # Also where Redis alone has told the end: what is changed from here on is news.
        self._remember(message.id, known)
        if is_told:
            return
        end = _finish(message, begun, mark)
        for reader in self.readers:
            reader.finish(end)

    def _remember(self, message_id: UUID, content: int | None) -> None:
        self._ended[message_id] = content
        self._ended.move_to_end(message_id)
        if len(self._ended) > _KEPT_ENDS:
            self._ended.popitem(last=False)

    def _push_piece(self, entry: Entry) -> None:
        told, place = frame(entry.update, self.mark()), entry_place(entry.id)
        for reader in self.readers:
            reader.push_piece(place, told)

    def _push_all(self, told: Frame) -> None:
        for reader in self.readers:
            reader.push(told)


def new_feed(task_id: UUID, cursor: Cursor, found: Found, tail: str | None) -> Feed:
    """The feed of a task that is watched from this cursor on."""
    assert found.task is not None  # noqa: S101 - who asks for no message gets the task
    return Feed(
        task_id,
        cursor,
        task_hash(wire_task_row(found.task)),
        {message_id: _Open(None) for message_id in found.open_ids},
        read=tail,
        told=tail,
    )


def with_cursors(
    scan: Scan, found: Found, cursor: Cursor, *, more: bool
) -> Iterator[tuple[MessageRow, Cursor]]:
    """The messages with the cursor behind each: within the snapshot until the last, unless `more` follows."""
    target, last = scan.target(cursor), len(found.messages) - 1
    for number, message in enumerate(found.messages):
        is_end = number == last and scan.complete and not more
        part = None if is_end else Part(target, message.xid, message.id)
        yield message, Cursor(target if is_end else cursor.seen, part)


def wire_task_row(row: JsonObject) -> JsonObject:
    """A task's row as clients read it."""
    return TaskRead.model_validate(row).model_dump(mode="json")


def task_hash(task: JsonObject) -> int:
    """Equal for a task that clients would see as the same, whenever it was written."""
    return hash(json.dumps({**task, "updated_at": None}, sort_keys=True))


def _changed_task(row: JsonObject | None, shown: int) -> JsonObject | None:
    if row is None:
        return None
    task = wire_task_row(row)
    return task if task_hash(task) != shown else None


def _content_hash(content: JsonObject) -> int:
    return hash(json.dumps(content, sort_keys=True))


def _finish(message: MessageRow, begun: _Open | None, mark: str) -> Finish:
    wire = frames.wire_message(message.row)
    whole = frame(frames.full(wire), mark)
    content = wire["content"]
    if begun is None or begun.text is None or content["type"] != "text":
        return Finish(message.id, whole)
    told = "".join(begun.text)
    if not content["content"].startswith(told):
        return Finish(message.id, whole)
    rest = content["content"][len(told) :]
    # Without an id: whoever goes on from before it gets the message whole.
    pieces = (frame(frames.text_delta(wire, rest)),) if rest else ()
    return Finish(message.id, whole, (*pieces, frame(frames.done(wire), mark)))
