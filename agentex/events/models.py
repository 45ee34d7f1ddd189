"""Events: inputs to an async agent, in the order in which they were made."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import BigInteger, Identity, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from agentex.database import JsonColumn, JsonObject
from agentex.ids import new_id


class Event(SQLModel, table=True):
    """One input. delivery_key is what keeps a run's event one, however often it is attempted."""

    __tablename__ = "events"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        UniqueConstraint("task_id", "delivery_key", name="uq_events_task_id_delivery_key"),
        Index("ix_events_task_id_sequence_id", "task_id", "sequence_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    sequence_id: int | None = Field(
        default=None, sa_type=BigInteger, sa_column_args=(Identity(always=True),), nullable=False
    )
    account_id: str
    task_id: UUID = Field(foreign_key="tasks.id")
    agent_id: UUID
    content: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    delivery_key: str
    created_at: datetime


class EventRead(BaseModel):
    """An event on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    sequence_id: int
    task_id: UUID
    agent_id: UUID
    content: JsonObject | None = None
    created_at: AwareDatetime
