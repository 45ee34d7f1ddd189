"""Messages: what user and agent said in a task."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from agentex.acp.messages import MessageContent
from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.ids import new_id
from agentex.instants import Instant


class StreamingStatus(StrEnum):
    """Whether a message is still being written."""

    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"


class Message(SQLModel, table=True):
    """One message."""

    __tablename__ = "messages"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index("ix_messages_task_id_created_at", "task_id", text("created_at DESC"), text("id DESC")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    task_id: UUID = Field(foreign_key="tasks.id")
    content: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    streaming_status: StreamingStatus | None = Field(
        default=None,
        sa_type=text_enum(StreamingStatus, "streaming_status"),  # pyright: ignore[reportArgumentType]
    )
    created_at: datetime
    updated_at: datetime


class MessageCreate(BaseModel):
    """What an agent or a client adds to a task."""

    task_id: UUID
    content: MessageContent
    streaming_status: StreamingStatus | None = None
    created_at: Instant | None = None


class MessageRead(BaseModel):
    """A TaskMessage on the wire; content is kept as it was sent."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    task_id: UUID
    content: MessageContent
    streaming_status: StreamingStatus | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
