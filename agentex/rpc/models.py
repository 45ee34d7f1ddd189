"""JSON-RPC 2.0 as clients speak it to an agent (wire.md §1a)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, model_validator
from sqlalchemy import ARRAY, Index, Uuid, text
from sqlmodel import Field as Column
from sqlmodel import SQLModel

from agentex.acp.messages import MessageContent
from agentex.database import JsonObject
from agentex.ids import new_id

# JSON-RPC 2.0 §5.1.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


# Four bytes a character at most, and a btree entry takes 2,704 bytes.
TaskName = Annotated[str, Field(min_length=1, max_length=512)]


class RpcMethod(StrEnum):
    """What clients may ask for."""

    TASK_CREATE = "task/create"
    TASK_CANCEL = "task/cancel"
    TASK_INTERRUPT = "task/interrupt"
    EVENT_SEND = "event/send"
    MESSAGE_SEND = "message/send"


class RpcRequest(BaseModel):
    """A request; `id` and `jsonrpc` may be left out."""

    jsonrpc: Literal["2.0"] = "2.0"
    method: str
    params: JsonObject = Field(default_factory=dict)
    id: StrictInt | StrictStr | None = None


class RpcError(BaseModel):
    """Why there is no result."""

    code: int = Field(description="-32601 unknown method, -32602 invalid params, -32603 anything else")
    message: str
    data: None = None


class RpcResponse(BaseModel):
    """A result or an error, under the request's id."""

    jsonrpc: Literal["2.0"] = "2.0"
    result: Any = None
    error: RpcError | None = None
    id: int | str | None = None


class TaskCreateParams(BaseModel):
    """Get or create a task: by name, unique in the account; always a new one without."""

    name: TaskName | None = None
    params: JsonObject | None = None
    task_metadata: JsonObject | None = None


class OneTaskParams(BaseModel):
    """A task of the agent, by id or by name: task/cancel and task/interrupt."""

    task_id: UUID | None = None
    task_name: TaskName | None = None

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if (self.task_id is None) == (self.task_name is None):
            raise ValueError("give task_id or task_name, and not both")
        return self


class EventSendParams(OneTaskParams):
    """Input for a task, named by id or by name."""

    content: MessageContent | None = None


class MessageSendParams(BaseModel):
    """A message for a sync agent: in a task that is there, in the one of this name, or in a new one."""

    content: MessageContent
    stream: StrictBool = False
    task_id: UUID | None = None
    task_name: TaskName | None = None
    task_params: JsonObject | None = None

    @model_validator(mode="after")
    def _at_most_one_task(self) -> Self:
        if self.task_id is not None and self.task_name is not None:
            raise ValueError("give task_id or task_name, and not both")
        return self


class MessageSend(SQLModel, table=True):
    """One message/send of a client: while its answer is open, and as long as a repeat may ask for it.

    Nobody holds a connection for it: the process that reads the answer renews claimed_until, and an open row
    whose claim is over is one whose process has gone, so that nobody knows what the agent has done.
    """

    __tablename__ = "message_sends"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index("ix_message_sends_task_id", "task_id"),
        # Nothing that a renewal changes stands in an index.
        Index("ix_message_sends_open", "id", postgresql_where=text("ended_at IS NULL")),
    )

    id: UUID = Column(default_factory=new_id, primary_key=True)
    account_id: str
    task_id: UUID = Column(foreign_key="tasks.id", ondelete="CASCADE")
    claimed_until: datetime
    # Whether a repeat waits for the end, and is to be told of it.
    awaited: bool = False
    # The agent's messages, in their order.
    message_ids: list[UUID] = Column(sa_type=ARRAY(Uuid), sa_column_kwargs={"server_default": text("'{}'")})  # pyright: ignore[reportArgumentType]
    # What was answered instead of messages.
    error: str | None = None
    # The agent certainly has not begun, so that a repeat may send it.
    unsent: bool = False
    ended_at: datetime | None = None
