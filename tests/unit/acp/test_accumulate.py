"""Updates add up to messages, per index; what came before a break is kept."""

from collections.abc import Callable, Mapping

import pytest
from pydantic import TypeAdapter

from agentex.acp.accumulate import Accumulator, accumulate
from agentex.acp.messages import (
    Author,
    DataContent,
    JsonObject,
    MessageContent,
    ReasoningContent,
    StreamUpdate,
    TextContent,
    ToolRequestContent,
    ToolResponseContent,
)
from agentex.errors import AgentProtocolError

UPDATE: TypeAdapter[StreamUpdate] = TypeAdapter(StreamUpdate)
CALL: JsonObject = {"tool_call_id": "c", "name": "n"}


def text(content: str) -> JsonObject:
    return {"type": "text", "author": "agent", "content": content}


def start(index: int | None, content: Mapping[str, object]) -> StreamUpdate:
    return UPDATE.validate_python({"type": "start", "index": index, "content": content})


def full(index: int | None, content: JsonObject) -> StreamUpdate:
    return UPDATE.validate_python({"type": "full", "index": index, "content": content})


def done(index: int | None) -> StreamUpdate:
    return UPDATE.validate_python({"type": "done", "index": index})


def delta(index: int | None, kind: str, **fields: str | int | None) -> StreamUpdate:
    return UPDATE.validate_python({"type": "delta", "index": index, "delta": {"type": kind, **fields}})


def words(index: int | None, *parts: str) -> list[StreamUpdate]:
    return [delta(index, "text", text_delta=part) for part in parts]


def said(content: str) -> TextContent:
    return TextContent(author=Author.AGENT, content=content)


def test_full_is_the_message():
    assert accumulate([full(0, text("hi"))]) == [said("hi")]


def test_no_updates_are_no_messages():
    assert accumulate([]) == []


def test_text_grows_from_its_start_and_keeps_the_starts_format():
    begun = start(0, text("a") | {"format": "markdown"})
    expected = said("abc").model_copy(update={"format": "markdown"})
    assert accumulate([begun, *words(0, "b", "c"), done(0)]) == [expected]


def test_text_without_a_start_is_the_agents():
    assert accumulate(words(0, "a", "b")) == [said("ab")]


def test_messages_stand_in_order_of_their_index_however_they_interleave():
    updates = [*words(2, "c"), *words(0, "a"), full(1, text("b")), *words(2, "C"), *words(0, "A")]
    assert accumulate(updates) == [said("aA"), said("b"), said("cC")]


def test_full_takes_the_place_of_what_was_streamed():
    assert accumulate([*words(0, "a"), full(0, text("whole"))]) == [said("whole")]


def test_start_after_done_begins_the_message_anew():
    assert accumulate([full(0, text("a")), start(0, text("")), *words(0, "b")]) == [said("b")]


def test_updates_without_an_index_belong_to_the_newest_message():
    updates = [start(None, text("")), *words(None, "a"), done(None), full(None, text("b")), done(None)]
    assert accumulate(updates) == [said("a"), said("b")]


def test_empty_deltas_and_done_of_an_unknown_message_change_nothing():
    alive = UPDATE.validate_python({"type": "delta", "index": 0, "delta": None})
    assert accumulate([alive, delta(0, "text", text_delta=None), done(7)]) == [said("")]


def test_data_grows_as_json_text():
    begun = start(0, {"type": "data", "author": "agent", "data": {"kept": 1}})
    updates = [begun, delta(0, "data", data_delta='{"a": [1,'), delta(0, "data", data_delta="2]}")]
    assert accumulate(updates) == [DataContent(author=Author.AGENT, data={"kept": 1, "a": [1, 2]})]


def test_tool_request_grows_as_json_text():
    updates = [
        delta(0, "tool_request", tool_call_id="c", name="n", arguments_delta='{"city"'),
        delta(0, "tool_request", tool_call_id="c", name="n", arguments_delta=': "Bonn"}'),
    ]
    expected = ToolRequestContent(author=Author.AGENT, tool_call_id="c", name="n", arguments={"city": "Bonn"})
    assert accumulate(updates) == [expected]


@pytest.mark.parametrize(("begun", "expected"), [("so ", "so far"), (None, "far"), ({"a": 1}, "far")])
def test_tool_response_grows_as_text(begun: str | JsonObject | None, expected: str):
    updates = [
        start(0, {"type": "tool_response", "author": "agent", "content": begun} | CALL),
        delta(0, "tool_response", tool_call_id="c", name="n", content_delta="far"),
    ]
    answer = ToolResponseContent(author=Author.AGENT, tool_call_id="c", name="n", content=expected)
    assert accumulate(updates) == [answer]


def test_tool_response_without_deltas_keeps_its_json():
    begun = start(0, {"type": "tool_response", "author": "agent", "content": {"a": 1}} | CALL)
    answer = ToolResponseContent(author=Author.AGENT, tool_call_id="c", name="n", content={"a": 1})
    assert accumulate([begun, done(0)]) == [answer]


def test_reasoning_grows_by_position_and_gaps_close_up():
    updates = [
        start(0, {"type": "reasoning", "author": "agent", "summary": ["s0"]}),
        delta(0, "reasoning_summary", summary_index=1_000_000_000, summary_delta="s2"),
        delta(0, "reasoning_summary", summary_index=0, summary_delta="+"),
        delta(0, "reasoning_content", content_index=1, content_delta="c1"),
        delta(0, "reasoning_content", content_index=0, content_delta="c0"),
    ]
    expected = ReasoningContent(author=Author.AGENT, summary=["s0+", "s2"], content=["c0", "c1"])
    assert accumulate(updates) == [expected]


def test_reasoning_of_summaries_only_has_no_content():
    updates = [delta(0, "reasoning_summary", summary_index=0, summary_delta="s")]
    assert accumulate(updates) == [ReasoningContent(author=Author.AGENT, summary=["s"], content=None)]


def test_delta_of_another_kind_than_its_message_is_a_protocol_error():
    with pytest.raises(AgentProtocolError, match="data delta came for message 3, which is text"):
        accumulate([full(0, text("a")), start(3, text("")), delta(3, "data", data_delta="{}")])


@pytest.mark.parametrize("ended", [lambda: full(0, text("a")), lambda: done(0)], ids=["full", "done"])
def test_delta_after_the_end_of_its_message_is_a_protocol_error(ended: Callable[[], StreamUpdate]):
    with pytest.raises(AgentProtocolError, match="after message 0 was complete"):
        accumulate([*words(0, "a"), ended(), *words(0, "b")])


@pytest.mark.parametrize("json_text", ['{"a": 1', "[1]", "NaN"])
def test_json_deltas_that_make_no_object_are_a_protocol_error_but_kept_as_partial(json_text: str):
    accumulator = Accumulator()
    accumulator.add(delta(0, "data", data_delta=json_text))
    with pytest.raises(AgentProtocolError, match="message 0 add up to no JSON object"):
        accumulator.contents()
    kept: list[MessageContent] = [DataContent(author=Author.AGENT, data={"unfinished": json_text})]
    assert accumulator.partial_contents() == kept


def test_partial_contents_are_what_came_before_the_break():
    accumulator = Accumulator()
    for update in [full(0, text("whole")), *words(1, "hal", "f")]:
        accumulator.add(update)
    assert accumulator.partial_contents() == [said("whole"), said("half")]


def test_each_update_tells_its_message_also_where_the_agent_leaves_it_out():
    accumulator = Accumulator()
    updates = [start(None, text("")), delta(None, "text", text_delta="a"), full(None, text("b")), done(0)]
    assert [accumulator.add(one) for one in updates] == [0, 0, 1, 0]
    assert (accumulator.indexes, accumulator.is_done(0), accumulator.is_done(7)) == ([0, 1], True, False)


def test_one_message_is_read_while_others_go_on():
    accumulator = Accumulator()
    for one in [*words(0, "a", "b"), delta(1, "data", data_delta="{")]:
        accumulator.add(one)
    assert accumulator.content(0) == said("ab")
    assert accumulator.content(1, partial=True) == DataContent(author=Author.AGENT, data={"unfinished": "{"})
    with pytest.raises(AgentProtocolError):
        accumulator.content(1)
