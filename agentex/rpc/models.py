"""JSON-RPC 2.0 as clients speak it to an agent (wire.md §1a)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, StrictInt, StrictStr, model_validator

from agentex.acp.messages import MessageContent
from agentex.database import JsonObject

# JSON-RPC 2.0 §5.1.
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


class EventSendParams(BaseModel):
    """Input for a task, named by id or by name."""

    task_id: UUID | None = None
    task_name: TaskName | None = None
    content: MessageContent | None = None

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if (self.task_id is None) == (self.task_name is None):
            raise ValueError("give task_id or task_name, and not both")
        return self
