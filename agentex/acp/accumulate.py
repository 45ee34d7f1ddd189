"""Turns the updates of a message/send into the messages they add up to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic_core import from_json

from agentex.acp.messages import (
    Author,
    DataContent,
    DataDelta,
    DoneUpdate,
    FullUpdate,
    Json,
    JsonObject,
    MessageContent,
    MessageDelta,
    ReasoningContent,
    ReasoningContentDelta,
    ReasoningSummaryDelta,
    StartUpdate,
    StreamUpdate,
    TextContent,
    TextDelta,
    ToolRequestContent,
    ToolRequestDelta,
    ToolResponseContent,
    ToolResponseDelta,
)
from agentex.errors import AgentProtocolError


@dataclass
class _Pieces:
    """What deltas added to one message; joined once at the end, so that n deltas cost n."""

    content: MessageContent
    is_done: bool = False
    texts: list[str] = field(default_factory=list[str])
    summaries: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    thoughts: dict[int, list[str]] = field(default_factory=dict[int, list[str]])


class Accumulator:
    """The messages of one answer, by index.

    accumulator = Accumulator()
    async for update in updates: accumulator.add(update)
    accumulator.contents()   # after a break: accumulator.partial_contents()
    """

    def __init__(self) -> None:
        self._messages: dict[int, _Pieces] = {}
        self._newest = 0

    def add(self, update: StreamUpdate) -> int:
        """Takes the next update and returns the index of its message, which an update may leave out.

        Raises AgentProtocolError for a delta that fits no open message.
        """
        index = self._index(update)
        if isinstance(update, StartUpdate):
            self._messages[index] = _Pieces(update.content)
        elif isinstance(update, FullUpdate):
            self._messages[index] = _Pieces(update.content, is_done=True)
        elif isinstance(update, DoneUpdate):
            if index in self._messages:
                self._messages[index].is_done = True
        elif update.delta is not None:
            self._grow(index, update.delta)
        return index

    @property
    def indexes(self) -> list[int]:
        """The messages that have begun."""
        return sorted(self._messages)

    def is_done(self, index: int) -> bool:
        """Whether this message is complete."""
        return index in self._messages and self._messages[index].is_done

    def content(self, index: int, *, partial: bool = False) -> MessageContent:
        """One message as it is now; raises as contents does, unless it is to be taken as cut short."""
        return _finished(self._messages[index], index, keep_cut_json=partial)

    def contents(self) -> list[MessageContent]:
        """The messages by index; raises AgentProtocolError for deltas that make no JSON object."""
        return [self.content(index) for index in self.indexes]

    def partial_contents(self) -> list[MessageContent]:
        """The same of a stream that broke: JSON cut short stands as {"unfinished": text}. Never raises."""
        return [self.content(index, partial=True) for index in self.indexes]

    def _index(self, update: StreamUpdate) -> int:
        if update.index is not None:
            self._newest = update.index
        elif isinstance(update, StartUpdate | FullUpdate):
            self._newest = max(self._messages, default=-1) + 1
        return self._newest

    def _grow(self, index: int, delta: MessageDelta) -> None:
        pieces = self._messages.get(index)
        if pieces is None:
            # Agents that stream without a start are common; the delta says what it is a part of.
            pieces = self._messages[index] = _Pieces(empty_content(delta))
        if pieces.is_done:
            raise AgentProtocolError(f"a {delta.type} delta came after message {index} was complete")
        if not isinstance(empty_content(delta), type(pieces.content)):
            raise AgentProtocolError(
                f"a {delta.type} delta came for message {index}, which is {pieces.content.type}"
            )
        _append(pieces, delta)


def accumulate(updates: Iterable[StreamUpdate]) -> list[MessageContent]:
    """The messages that a whole stream adds up to."""
    accumulator = Accumulator()
    for update in updates:
        accumulator.add(update)
    return accumulator.contents()


def empty_content(delta: MessageDelta) -> MessageContent:
    """What a message is that begins with this delta, before it."""
    match delta:
        case TextDelta():
            return TextContent(author=Author.AGENT, content="")
        case DataDelta():
            return DataContent(author=Author.AGENT, data={})
        case ToolRequestDelta():
            return ToolRequestContent(
                author=Author.AGENT, tool_call_id=delta.tool_call_id, name=delta.name, arguments={}
            )
        case ToolResponseDelta():
            return ToolResponseContent(
                author=Author.AGENT, tool_call_id=delta.tool_call_id, name=delta.name, content=""
            )
        case ReasoningSummaryDelta() | ReasoningContentDelta():
            return ReasoningContent(author=Author.AGENT, summary=[])


def _append(pieces: _Pieces, delta: MessageDelta) -> None:
    match delta:
        case TextDelta():
            pieces.texts.append(delta.text_delta or "")
        case DataDelta():
            pieces.texts.append(delta.data_delta or "")
        case ToolRequestDelta():
            pieces.texts.append(delta.arguments_delta or "")
        case ToolResponseDelta():
            pieces.texts.append(delta.content_delta or "")
        case ReasoningSummaryDelta():
            pieces.summaries.setdefault(delta.summary_index, []).append(delta.summary_delta or "")
        case ReasoningContentDelta():
            pieces.thoughts.setdefault(delta.content_index, []).append(delta.content_delta or "")


def _finished(pieces: _Pieces, index: int, *, keep_cut_json: bool = False) -> MessageContent:
    content, text = pieces.content, "".join(pieces.texts)
    match content:
        case TextContent():
            return content.model_copy(update={"content": content.content + text})
        case DataContent():
            return content.model_copy(update={"data": content.data | _object(text, index, keep_cut_json)})
        case ToolRequestContent():
            arguments = content.arguments | _object(text, index, keep_cut_json)
            return content.model_copy(update={"arguments": arguments})
        case ToolResponseContent():
            return content.model_copy(update={"content": _tool_answer(content.content, text)})
        case ReasoningContent():
            return content.model_copy(
                update={
                    "summary": _grown(content.summary, pieces.summaries),
                    "content": _grown(content.content or [], pieces.thoughts) or content.content,
                }
            )


def _object(text: str, index: int, keep_cut_json: bool) -> JsonObject:
    if not text.strip():
        return {}
    try:
        value: Json = from_json(text, allow_inf_nan=False)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    if keep_cut_json:
        return {"unfinished": text}
    raise AgentProtocolError(f"the deltas of message {index} add up to no JSON object")


def _tool_answer(begun: Json, text: str) -> Json:
    if not text:
        return begun
    return begun + text if isinstance(begun, str) else text


def _grown(begun: list[str], pieces: dict[int, list[str]]) -> list[str]:
    """Texts by position; gaps close up, so a position of a billion costs one entry."""
    grown = dict(enumerate(begun))
    for position, texts in pieces.items():
        grown[position] = grown.get(position, "") + "".join(texts)
    return [grown[position] for position in sorted(grown)]
