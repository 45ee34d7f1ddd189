"""Cursors: what goes in comes out; anything else is refused with words."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from agentex.errors import InvalidInput
from agentex.pagination import decode_cursor, encode_cursor

ID = UUID("01930000-0000-7000-8000-000000000001")


def wrapped(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "instant",
    [
        datetime(2026, 12, 1, 9, 0, tzinfo=UTC),
        datetime(2026, 12, 1, 9, 0, 0, 123_456, tzinfo=UTC),
        datetime(2026, 12, 1, 9, 0, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_cursor_comes_back_as_it_went_in(instant: datetime) -> None:
    cursor = encode_cursor(instant, ID)
    assert decode_cursor(cursor) == (instant, ID)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?# ")


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "x",
        "!!!!",
        "%00",
        "äöü",
        "null",
        "a" * 201,
        wrapped(None),
        wrapped(1),
        wrapped([]),
        wrapped(["2026-12-01T09:00:00+00:00"]),
        wrapped(["2026-12-01T09:00:00+00:00", str(ID), "more"]),
        wrapped(["2026-12-01T09:00:00", str(ID)]),
        wrapped(["yesterday", str(ID)]),
        wrapped([1_764_579_600, str(ID)]),
        wrapped(["2026-12-01T09:00:00+00:00", 7]),
        wrapped(["2026-12-01T09:00:00+00:00", "no id"]),
        wrapped({"a": 1, "b": 2}),
        wrapped("ab"),
        base64.urlsafe_b64encode(b"\xff\xfe[").decode(),
    ],
)
def test_garbage_is_no_cursor(garbage: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_cursor(garbage)
    assert caught.value.message == f"cursor: {garbage[:80]!r} is not a next_cursor of this list"
