"""ACP's shapes: a call, message contents, and the updates of an answer's stream.

Contents and updates are unions told apart by `type`. Unknown fields of an agent's answer are ignored,
so a newer agent can be read; unknown types are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, NonNegativeInt

Json: TypeAlias = JsonValue
JsonObject: TypeAlias = dict[str, JsonValue]


class AcpMethod(StrEnum):
    """The JSON-RPC methods of an agent."""

    TASK_CREATE = "task/create"
    TASK_CANCEL = "task/cancel"
    TASK_INTERRUPT = "task/interrupt"
    EVENT_SEND = "event/send"
    MESSAGE_SEND = "message/send"


@dataclass(frozen=True)
class AcpCall:
    """One request to an agent.

    `acp_url` is the agent's address without `/api`; `request_id` is the JSON-RPC id that the agent echoes;
    `timeout_seconds` covers everything from the connect to the answer's last byte.
    """

    acp_url: str
    method: str
    params: JsonObject
    request_id: str
    idempotency_key: str | None
    timeout_seconds: float
    trace_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    # Of a client's request, in lower case, as headers.passed_headers lets them through.
    passed_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    # What the agent knows us by, sealed; None for an agent that takes calls from anybody.
    sealed_key: str | None = field(default=None, repr=False)


class Author(StrEnum):
    """Who wrote a message."""

    USER = "user"
    AGENT = "agent"


class Style(StrEnum):
    """How a message is shown."""

    STATIC = "static"
    ACTIVE = "active"


class TextFormat(StrEnum):
    """How a text is marked up."""

    MARKDOWN = "markdown"
    PLAIN = "plain"
    CODE = "code"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


# The generated SDKs type style and format as nullable, so a null on the wire means "not said".
def _null_is_static(value: object) -> object:
    return Style.STATIC if value is None else value


def _null_is_plain(value: object) -> object:
    return TextFormat.PLAIN if value is None else value


MessageStyle: TypeAlias = Annotated[Style, BeforeValidator(_null_is_static)]


class Attachment(_Wire):
    """A file that belongs to a text; `size` in bytes, `type` is a MIME type."""

    file_id: str
    name: str
    size: int
    type: str


class TextContent(_Wire):
    """Words of a user or an agent."""

    type: Literal["text"] = "text"
    author: Author
    style: MessageStyle = Style.STATIC
    format: Annotated[TextFormat, BeforeValidator(_null_is_plain)] = TextFormat.PLAIN
    content: str
    attachments: list[Attachment] | None = None


class DataContent(_Wire):
    """A JSON object as a message."""

    type: Literal["data"] = "data"
    author: Author
    style: MessageStyle = Style.STATIC
    data: JsonObject


class ToolRequestContent(_Wire):
    """An agent's call of a tool."""

    type: Literal["tool_request"] = "tool_request"
    author: Author
    style: MessageStyle = Style.STATIC
    tool_call_id: str
    name: str
    arguments: JsonObject


class ToolResponseContent(_Wire):
    """What a tool answered; `content` is any JSON."""

    type: Literal["tool_response"] = "tool_response"
    author: Author
    style: MessageStyle = Style.STATIC
    tool_call_id: str
    name: str
    content: Json
    is_error: bool | None = None


class ReasoningContent(_Wire):
    """An agent's reasoning: short summaries, and the text itself where the model gives it."""

    type: Literal["reasoning"] = "reasoning"
    author: Author
    style: MessageStyle = Style.STATIC
    summary: list[str]
    content: list[str] | None = None


MessageContent: TypeAlias = Annotated[
    TextContent | DataContent | ToolRequestContent | ToolResponseContent | ReasoningContent,
    Field(discriminator="type"),
]


class TextDelta(_Wire):
    """More of a text."""

    type: Literal["text"] = "text"
    text_delta: str | None = None


class DataDelta(_Wire):
    """More of a data content's JSON, as text."""

    type: Literal["data"] = "data"
    data_delta: str | None = None


class ToolRequestDelta(_Wire):
    """More of a tool call's arguments: JSON, as text."""

    type: Literal["tool_request"] = "tool_request"
    tool_call_id: str
    name: str
    arguments_delta: str | None = None


class ToolResponseDelta(_Wire):
    """More of a tool's answer, as text."""

    type: Literal["tool_response"] = "tool_response"
    tool_call_id: str
    name: str
    content_delta: str | None = None


class ReasoningSummaryDelta(_Wire):
    """More of the summary at `summary_index`."""

    type: Literal["reasoning_summary"] = "reasoning_summary"
    summary_index: NonNegativeInt
    summary_delta: str | None = None


class ReasoningContentDelta(_Wire):
    """More of the reasoning text at `content_index`."""

    type: Literal["reasoning_content"] = "reasoning_content"
    content_index: NonNegativeInt
    content_delta: str | None = None


MessageDelta: TypeAlias = Annotated[
    TextDelta
    | DataDelta
    | ToolRequestDelta
    | ToolResponseDelta
    | ReasoningSummaryDelta
    | ReasoningContentDelta,
    Field(discriminator="type"),
]


class _Update(_Wire):
    # Which message of the answer this is about; a null means the next one (start, full) or the newest.
    index: NonNegativeInt | None = None
    parent_task_message: JsonObject | None = None


class StartUpdate(_Update):
    """A message begins; its content so far."""

    type: Literal["start"] = "start"
    content: MessageContent


class DeltaUpdate(_Update):
    """A message grows; a null delta is a sign of life."""

    type: Literal["delta"] = "delta"
    delta: MessageDelta | None = None


class FullUpdate(_Update):
    """A whole message, in place of all that came before for its index."""

    type: Literal["full"] = "full"
    content: MessageContent


class DoneUpdate(_Update):
    """A message is complete."""

    type: Literal["done"] = "done"


StreamUpdate: TypeAlias = Annotated[
    StartUpdate | DeltaUpdate | FullUpdate | DoneUpdate, Field(discriminator="type")
]
