"""Streams: who watches which task, and the updates on the wire."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, RootModel
from pydantic import Field as WireField
from sqlmodel import Field, SQLModel

from agentex.acp.messages import MessageContent, MessageDelta
from agentex.messages.models import MessageRead
from agentex.tasks.models import TaskRead


class StreamWatch(SQLModel, table=True):
    """A task that an API process watches: the triggers of messages and tasks tell of no other.

    `listener` is the Postgres process behind its listening connection, so a row is valid as long as that
    lives. Unlogged: whoever connects again after a crash puts its rows in again.
    """

    __tablename__ = "stream_watches"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

    task_id: UUID = Field(primary_key=True)
    listener: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


class StreamConnected(BaseModel):
    """The first update: whatever happens from here on comes."""

    type: Literal["connected"]
    taskId: str  # noqa: N815 - the wire's name


class StreamMessageStart(BaseModel):
    """A message is being written."""

    type: Literal["start"]
    index: int | None = None
    parent_task_message: MessageRead | None = None
    content: MessageContent


class StreamMessageDelta(BaseModel):
    """The next piece of a message."""

    type: Literal["delta"]
    index: int | None = None
    parent_task_message: MessageRead | None = None
    delta: MessageDelta | None = None


class StreamMessageFull(BaseModel):
    """A message, whole; it takes the place of all that came of it before."""

    type: Literal["full"]
    index: int | None = None
    parent_task_message: MessageRead | None = None
    content: MessageContent


class StreamMessageDone(BaseModel):
    """The pieces of a message have all come."""

    type: Literal["done"]
    index: int | None = None
    parent_task_message: MessageRead | None = None


class StreamTaskUpdated(BaseModel):
    """The task has changed; with a terminal status this is the last update."""

    type: Literal["task_updated"]
    task: TaskRead


class StreamError(BaseModel):
    """Why the stream ends before the task does."""

    type: Literal["error"]
    message: str


class TaskStreamUpdate(
    RootModel[
        Annotated[
            StreamConnected
            | StreamMessageStart
            | StreamMessageDelta
            | StreamMessageFull
            | StreamMessageDone
            | StreamTaskUpdated
            | StreamError,
            WireField(discriminator="type"),
        ]
    ]
):
    """The `data` of one event of a task's stream."""
