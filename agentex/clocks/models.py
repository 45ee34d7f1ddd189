"""Clocks: one row per cadence, shared by all schedules that have it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from agentex.database import JsonColumn, JsonObject
from agentex.ids import new_id


class Clock(SQLModel, table=True):
    """One cadence and where its opening stands.

    next_due_at is the first instant not yet opened, null when the cadence has none left. A clock of
    whole minutes is rung by the shared minute schedule, any other by a Temporal Schedule of its own. One
    whose cadence cannot be read stands still until the sweep can read it again; broken_at is when somebody
    last tried in vain.
    """

    __tablename__ = "clocks"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index(
            "ix_clocks_next_due_at",
            "next_due_at",
            "id",
            postgresql_where=text("retired_at IS NULL AND broken_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    cadence_key: str = Field(unique=True)
    cadence: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    whole_minutes: bool
    next_due_at: datetime | None = None
    synced_at: datetime | None = None
    # Since when the sweep has seen it without a schedule.
    idle_since: datetime | None = None
    retired_at: datetime | None = None
    broken_at: datetime | None = None
    created_at: datetime
