"""Messages: what user and agent said in a task."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic import Field as Described
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from agentex.acp.messages import MessageContent
from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.ids import new_id
from agentex.instants import Instant

# As many as a page of a list has; a batch is one statement.
MAX_BATCH = 1_000


class StreamingStatus(StrEnum):
    """Whether a message is still being written."""

    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"


class MessageOrder(StrEnum):
    """What a list can be ordered by; created_at is what the index holds, the others sort one task."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    ID = "id"


class PageDirection(StrEnum):
    """Which way a cursor goes on."""

    OLDER = "older"
    NEWER = "newer"


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

    task_id: UUID = Described(description="The task that it is added to")
    content: MessageContent
    streaming_status: StreamingStatus | None = Described(
        default=None, description="IN_PROGRESS while it is still being written"
    )
    created_at: Instant | None = Described(
        default=None, description="Its place in the conversation; the server's clock unless it is given"
    )


class MessageUpdate(BaseModel):
    """A message as it is from now on."""

    task_id: UUID = Described(description="The task that the message is in")
    content: MessageContent
    streaming_status: StreamingStatus | None = Described(default=None, description="Null leaves it as it is")


class MessageBatchCreate(BaseModel):
    """Messages for one task, in their order."""

    task_id: UUID = Described(description="The task that they are added to")
    contents: list[MessageContent] = Described(max_length=MAX_BATCH)
    created_at: Instant | None = Described(
        default=None, description="Of the first; each one behind it is a millisecond later"
    )


class MessageBatchUpdate(BaseModel):
    """New contents of messages of one task, by the messages' ids."""

    task_id: UUID = Described(description="The task that they are all in")
    updates: dict[UUID, MessageContent] = Described(max_length=MAX_BATCH)


class MessageRead(BaseModel):
    """A TaskMessage on the wire; content is kept as it was sent."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    task_id: UUID
    content: MessageContent
    streaming_status: StreamingStatus | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class MessagePage(BaseModel):
    """A page of messages, and how to go on."""

    data: list[MessageRead] = Described(description="Newest first; oldest first with direction newer")
    next_cursor: str | None = Described(
        default=None, description="Continues in the same direction; null at the end"
    )
    has_more: bool = Described(default=False, description="Whether there is a next page")
