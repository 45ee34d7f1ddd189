"""The bytes of a stream's events.

Unmodified clients set the shape: one reader takes each chunk of the answer for one event that begins with
`data: `, so the id goes in a chunk of its own before it; another takes any blank line after the first id for
an event, so a ping has none behind it; a third splits lines where Unicode does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agentex.database import JsonObject
from agentex.messages.models import MessageRead

PING = b":ping\n"
_UNICODE_LINE_ENDS = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One event: its data and, where a reader can go on behind it, its id."""

    data: bytes
    id: bytes | None = None

    @property
    def size(self) -> int:
        """In bytes, roughly."""
        return len(self.data) + (len(self.id) if self.id else 0)


def frame(update: JsonObject, cursor: str | None = None) -> Frame:
    """An update, and the cursor behind it."""
    text = json.dumps(update, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii():
        for end, escaped in _UNICODE_LINE_ENDS.items():
            text = text.replace(end, escaped)
    identity = f"id: {cursor}\n".encode() if cursor is not None else None
    return Frame(f"data: {text}\n\n".encode(), identity)


def connected(task_id: object) -> JsonObject:
    """The first update."""
    return {"type": "connected", "taskId": str(task_id)}


def error(message: str) -> JsonObject:
    """Why the stream ends."""
    return {"type": "error", "message": message}


def wire_message(row: JsonObject) -> JsonObject:
    """A message's row as clients read it."""
    return MessageRead.model_validate(row).model_dump(mode="json")


def start(message: JsonObject) -> JsonObject:
    """A message is begun."""
    return {"type": "start", "index": None, "parent_task_message": message, "content": message["content"]}


def full(message: JsonObject) -> JsonObject:
    """A message is whole."""
    return {"type": "full", "index": None, "parent_task_message": message, "content": message["content"]}


def done(message: JsonObject) -> JsonObject:
    """The pieces of a message have all come."""
    return {"type": "done", "index": None, "parent_task_message": message}


def text_delta(message: JsonObject, text: str) -> JsonObject:
    """The next piece of a text."""
    delta: dict[str, Any] = {"type": "text", "text_delta": text}
    return {"type": "delta", "index": None, "parent_task_message": message, "delta": delta}
