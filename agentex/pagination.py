"""What lists share: keyset cursors, opaque to callers and to us the last row's sort key; what is in none."""

from __future__ import annotations

import base64
import json
from binascii import Error as BadBase64
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, column, select, table, tuple_
from sqlalchemy.orm import Mapped

from agentex.errors import InvalidInput

# The slice of that name, which is above, has the model.
_TASKS = table("tasks", column("id"), column("status"))


class OrderDirection(StrEnum):
    """Which end of a list comes first."""

    ASC = "asc"
    DESC = "desc"


def not_of_deleted_task(task_id: Mapped[UUID] | Mapped[UUID | None]) -> ColumnElement[bool]:
    """What hangs on no task, or on one that is not deleted.

    A value that is looked up for each row, by the task's key: a join or EXISTS may be turned into one over
    all tasks, and the list's index would not end at its limit.
    """
    status = select(_TASKS.c.status).where(_TASKS.c.id == task_id).scalar_subquery()
    return status.is_distinct_from("DELETED")


def after_cursor(cursor: str, instant: Mapped[datetime], id_: Mapped[UUID]) -> ColumnElement[bool]:
    """What follows a cursor in a list by this instant and id, newest first; raises InvalidInput.

    A row comparison, which is a bound of the index; `a < x OR (a = x AND b < y)` is not, and walks the
    index from its start: the last pages of 5,000,000 rows took seconds.
    """
    return tuple_(instant, id_) < tuple_(*decode_cursor(cursor))


def before_cursor(cursor: str, instant: Mapped[datetime], id_: Mapped[UUID]) -> ColumnElement[bool]:
    """What comes before a cursor in such a list, which is all that is newer; raises InvalidInput."""
    return tuple_(instant, id_) > tuple_(*decode_cursor(cursor))


def encode_cursor(instant: datetime, id_: UUID) -> str:
    """The cursor that continues after the row with this instant and id."""
    return base64.urlsafe_b64encode(json.dumps([instant.isoformat(), str(id_)]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    """What encode_cursor was given; raises InvalidInput for anything else."""
    try:
        instant, id_ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        parsed = datetime.fromisoformat(instant), UUID(id_)
    except (BadBase64, ValueError, TypeError, AttributeError):
        raise InvalidInput("cursor", f"{cursor[:80]!r} is not a next_cursor of this list") from None
    if parsed[0].tzinfo is None:
        raise InvalidInput("cursor", f"{cursor[:80]!r} is not a next_cursor of this list")
    return parsed
