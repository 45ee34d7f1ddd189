"""Trackers: how far an agent has come with the events of a task."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic import Field as Described
from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from agentex.ids import new_id

# Statuses are the agents' own words.
STATUS_CHARACTERS = 255
REASON_CHARACTERS = 10_000


class TrackerOrder(StrEnum):
    """What trackers can be ordered by."""

    CREATED_AT = "created_at"


class Tracker(SQLModel, table=True):
    """One agent's place in one task; made with the task, in the statement that makes it."""

    __tablename__ = "trackers"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        # The task first: it also serves the list of a task, and the task's deletion.
        UniqueConstraint("task_id", "agent_id", name="uq_trackers_task_id_agent_id"),
        Index("ix_trackers_account_id_created_at", "account_id", "created_at", "id"),
        Index("ix_trackers_agent_id_created_at", "agent_id", "created_at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    agent_id: UUID = Field(foreign_key="agents.id")
    task_id: UUID = Field(foreign_key="tasks.id", ondelete="CASCADE")
    # No foreign key: retention and cleaning remove events, and the place stays what it was.
    last_processed_event_id: UUID | None = None
    status: str | None = None
    status_reason: str | None = None
    created_at: datetime
    updated_at: datetime


class TrackerUpdate(BaseModel):
    """What changes: only the keys that are given; a null empties, but the place in the events stays."""

    last_processed_event_id: UUID | None = Described(
        default=None, description="The event that was processed last; it moves forward only"
    )
    status: str | None = Described(
        default=None, max_length=STATUS_CHARACTERS, description="In the agent's own words"
    )
    status_reason: str | None = Described(
        default=None, max_length=REASON_CHARACTERS, description="Why it is so"
    )


class TrackerRead(BaseModel):
    """A tracker on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    agent_id: UUID
    task_id: UUID
    last_processed_event_id: UUID | None = None
    status: str | None = None
    status_reason: str | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
