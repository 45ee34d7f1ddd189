"""`filters` of a list of messages: a JSON array of what to have and what to leave out.

    [{"content": {"type": "data"}}, {"content": {"data": {"kind": "progress"}}, "exclude": true}]

A filter matches a message that has all that the filter names; null and {} name nothing. A list has what one
of the including filters matches (all, if there is none), without what one of the excluding filters matches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, and_, false, func, literal, not_, or_
from sqlmodel import col

from agentex.acp.messages import Attachment, Author, Style, TextFormat
from agentex.database import JsonColumn, JsonObject
from agentex.errors import InvalidInput
from agentex.messages.models import Message, StreamingStatus
from agentex.validation import describe

# Conditions on one list; each is a look into a message's JSON.
MAX_FILTERS = 50
ContentType: TypeAlias = Literal["text", "data", "tool_request", "tool_response", "reasoning"]


class _Filter(BaseModel):
    # A name that is misspelt would match every message.
    model_config = ConfigDict(extra="forbid")


class ContentFilter(_Filter):
    """What a content has; of data and arguments any part, of anything else the whole value."""

    type: ContentType | None = None
    author: Author | None = None
    style: Style | None = None
    format: TextFormat | None = None
    content: JsonValue = None
    attachments: list[Attachment] | None = None
    data: dict[str, JsonValue] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    arguments: dict[str, JsonValue] | None = None
    is_error: bool | None = None
    summary: list[str] | None = None


class MessageFilter(_Filter):
    """What a message has, and whether the list leaves out such messages."""

    content: ContentFilter | None = None
    streaming_status: StreamingStatus | None = None
    exclude: bool = False


# One filter may stand without its array.
_Filters = TypeAdapter(list[MessageFilter])


def parse_filters(given: str | None) -> list[MessageFilter]:
    """The filters of a query; raises InvalidInput that names what is wrong."""
    if given is None:
        return []
    text = given if given.lstrip().startswith("[") else f"[{given}]"
    try:
        filters = _Filters.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise InvalidInput(
                "filters", f"is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
            ) from None
        raise InvalidInput("filters", describe(error.errors())) from None
    if len(filters) > MAX_FILTERS:
        raise InvalidInput("filters", f"{len(filters)} filters; a list takes {MAX_FILTERS} at most")
    try:
        json.dumps([one.model_dump(mode="json") for one in filters], allow_nan=False)
    except ValueError:
        raise InvalidInput("filters", "holds NaN or Infinity, which JSON has not (RFC 8259 §6)") from None
    return filters


def conditions(filters: Sequence[MessageFilter]) -> list[ColumnElement[bool]]:
    """The filters as conditions on messages, all of which must hold."""
    included = [one for one in map(_condition, (f for f in filters if not f.exclude)) if one is not None]
    excluded = [one for one in map(_condition, (f for f in filters if f.exclude)) if one is not None]
    found: list[ColumnElement[bool]] = []
    if included:
        found.append(or_(*included))
    if excluded:
        # What a message does not have at all compares as NULL, and NOT NULL would leave the message out.
        found.append(not_(func.coalesce(or_(*excluded), false())))
    return found


def _condition(wanted: MessageFilter) -> ColumnElement[bool] | None:
    content = wanted.content.model_dump(mode="json", exclude_none=True) if wanted.content else {}
    parts = [col(Message.content)[path] == literal(value, JsonColumn) for path, value in _leaves(content, ())]
    if wanted.streaming_status is not None:
        parts.append(col(Message.streaming_status) == wanted.streaming_status)
    return and_(*parts) if parts else None


def _leaves(value: JsonObject, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(cast("JsonObject", inner), (*path, key))
        elif inner is not None:
            yield (*path, key), inner
