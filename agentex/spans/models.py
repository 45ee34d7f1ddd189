"""Spans: what an agent did, step by step, as its tracing tells it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic import Field as Described
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from agentex.database import JsonColumn, JsonObject
from agentex.instants import Instant

# An index entry of Postgres holds 2,700 bytes: two of these, at 4 bytes a character, and the account.
ID_CHARACTERS = 255
# A name is for people; what was done stands in input and output.
NAME_CHARACTERS = 10_000

# One object, a list of them, or nothing.
SpanJson = JsonObject | list[JsonObject] | None
SpanId = Annotated[str, Described(min_length=1, max_length=ID_CHARACTERS)]
SpanName = Annotated[str, Described(max_length=NAME_CHARACTERS)]


class SpanOrder(StrEnum):
    """What spans can be ordered by."""

    START_TIME = "start_time"


class Span(SQLModel, table=True):
    """One step. Its id is the caller's, so it is unique within the account only."""

    __tablename__ = "spans"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index("ix_spans_account_id_start_time", "account_id", text("start_time DESC"), text("id DESC")),
        Index(
            "ix_spans_account_id_trace_id_start_time",
            "account_id",
            "trace_id",
            text("start_time DESC"),
            text("id DESC"),
        ),
        Index(
            "ix_spans_task_id_start_time",
            "task_id",
            text("start_time DESC"),
            text("id DESC"),
            postgresql_where=text("task_id IS NOT NULL"),
        ),
    )

    account_id: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    owner: str
    task_id: UUID | None = Field(default=None, foreign_key="tasks.id", ondelete="CASCADE")
    trace_id: str
    parent_id: str | None = None
    name: str
    start_time: datetime
    end_time: datetime | None = None
    input: Any = Field(default=None, sa_type=JsonColumn, nullable=True)  # pyright: ignore[reportArgumentType]
    output: Any = Field(default=None, sa_type=JsonColumn, nullable=True)  # pyright: ignore[reportArgumentType]
    data: Any = Field(default=None, sa_type=JsonColumn, nullable=True)  # pyright: ignore[reportArgumentType]
    created_at: datetime
    updated_at: datetime


class SpanCreate(BaseModel):
    """A span as an agent's tracing sends it, usually once it has ended."""

    id: SpanId | None = Described(default=None, description="Chosen by the caller; made here when left out")
    trace_id: SpanId = Described(description="The trace that the span belongs to, often a task's id")
    task_id: UUID | None = Described(default=None, description="The task that the span belongs to")
    parent_id: SpanId | None = Described(default=None, description="The span that this one is a part of")
    name: SpanName = Described(description="What was done")
    start_time: Instant = Described(description="When it began")
    end_time: Instant | None = Described(default=None, description="When it ended")
    input: SpanJson = Described(default=None, description="What it was given")
    output: SpanJson = Described(default=None, description="What came of it")
    data: SpanJson = Described(default=None, description="What else is worth knowing")


class SpanUpdate(BaseModel):
    """What changes: only the keys that are given. A null empties what may be empty; else it is ignored."""

    trace_id: SpanId | None = Described(default=None, description="The trace that the span belongs to")
    task_id: UUID | None = Described(default=None, description="The task that the span belongs to")
    parent_id: SpanId | None = Described(default=None, description="The span that this one is a part of")
    name: SpanName | None = Described(default=None, description="What was done")
    start_time: Instant | None = Described(default=None, description="When it began")
    end_time: Instant | None = Described(default=None, description="When it ended")
    input: SpanJson = Described(default=None, description="What it was given")
    output: SpanJson = Described(default=None, description="What came of it")
    data: SpanJson = Described(default=None, description="What else is worth knowing")


class SpanRead(BaseModel):
    """A span on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    trace_id: str
    task_id: UUID | None = None
    parent_id: str | None = None
    name: str
    start_time: AwareDatetime
    end_time: AwareDatetime | None = None
    input: SpanJson = None
    output: SpanJson = None
    data: SpanJson = None
