"""Instants as callers write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

# What a cadence can name; also well inside what Postgres and Python can hold in any zone.
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)


def _text_only(value: object) -> object:
    # A number would be taken for Unix seconds, or for milliseconds, by its size.
    if isinstance(value, int | float):
        raise ValueError(f"{value!r} is a number; an instant is text such as 2026-12-01T09:00:00Z")  # noqa: TRY004 - pydantic turns ValueError, not TypeError, into a 422
    return value


def _in_range(value: datetime) -> datetime:
    if not FIRST <= value <= LAST:
        raise ValueError(f"{value.isoformat()} is not an instant between 1970 and the end of 9998")
    return value


# ISO 8601 with an offset, e.g. 2026-12-01T09:00:00Z.
Instant = Annotated[AwareDatetime, BeforeValidator(_text_only), AfterValidator(_in_range)]
