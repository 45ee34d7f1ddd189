"""What an agent's answer means, without an agent: the rows of design.md §4 that need no network."""

import json
from datetime import UTC, datetime

import pytest

from agentex.acp.answers import (
    base_url,
    http_failure,
    last_updates_of,
    result_of,
    retry_after_seconds,
    updates_of,
)
from agentex.acp.messages import Author, FullUpdate, Json, JsonObject, TextContent
from agentex.errors import (
    AgentCallFailed,
    AgentError,
    AgentMethodUnknown,
    AgentProtocolError,
    AgentRejected,
    AgentUnreachable,
    OutcomeUnknown,
)
from tests.support.acp_calls import acp_call

CALL = acp_call()
WHO = "agent 127.0.0.1:28100, event/send: "
NOW = datetime(2026, 12, 1, 9, 0, 0, tzinfo=UTC)
TEXT: JsonObject = {"type": "text", "author": "agent", "content": "hi"}
FULL = FullUpdate(index=0, content=TextContent(author=Author.AGENT, content="hi"))


def answer(**fields: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "r-1", **fields}).encode()


@pytest.mark.parametrize(
    ("acp_url", "expected"),
    [
        ("http://agent:8000", "http://agent:8000/api"),
        ("http://agent:8000/", "http://agent:8000/api"),
        ("https://agent/a/b", "https://agent/a/b/api"),
        ("https://agent/a/b/", "https://agent/a/b/api"),
        ("http://[::1]:8000/a?q=1#f", "http://[::1]:8000/a/api"),
    ],
)
def test_api_stands_behind_the_acp_url_whatever_it_ends_with(acp_url: str, expected: str):
    assert str(base_url(acp_url) / "api") == expected


@pytest.mark.parametrize("acp_url", ["", "agent:8000", "ftp://agent", "http://", "http://agent:port", "/api"])
def test_an_address_that_is_none_is_unreachable(acp_url: str):
    with pytest.raises(AgentUnreachable):
        base_url(acp_url)


def test_a_failure_names_host_and_port_but_neither_path_nor_credentials():
    call = acp_call("https://user:password@[::1]/private")
    assert str(http_failure(call, 500, None, b"")) == "agent [::1]:443, event/send: answered HTTP 500"


@pytest.mark.parametrize(
    ("status", "retry_after", "kind"),
    [
        (300, None, AgentProtocolError),
        (307, None, AgentProtocolError),
        (400, None, AgentRejected),
        (401, None, AgentRejected),
        (404, "5", AgentRejected),
        (408, None, AgentError),
        (413, None, AgentRejected),
        (422, None, AgentRejected),
        (429, None, AgentUnreachable),
        (429, "soon", AgentUnreachable),
        (500, "5", AgentError),
        (502, None, AgentError),
        (503, None, AgentError),
        (503, "soon", AgentError),
        (503, "5", AgentUnreachable),
        (504, None, AgentError),
    ],
)
def test_status_outside_2xx_means(status: int, retry_after: str | None, kind: type[AgentCallFailed]):
    assert type(http_failure(CALL, status, retry_after, b"")) is kind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("601", 600.0),
        ("9" * 5000, 600.0),
        ("Tue, 01 Dec 2026 09:00:30 GMT", 30.0),
        ("Tue, 01 Dec 2026 08:00:00 GMT", 0.0),
        ("Wed, 02 Dec 2026 09:00:00 GMT", 600.0),
        ("Tue, 01 Dec 2026 09:00:30", 30.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Tue, 99 Dec 2026 09:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_at_most_600_s_away(value: str | None, expected: float | None):
    assert retry_after_seconds(value, NOW) == expected


@pytest.mark.parametrize("result", [None, {"status": "processing"}, [], "text", 0, False])
def test_any_result_is_an_answer_null_too(result: Json):
    assert result_of(answer(result=result, error=None), CALL) == result


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-32600, AgentRejected),
        (-32601, AgentMethodUnknown),
        (-32602, AgentRejected),
        (-32603, AgentError),
        (-32700, AgentError),
        (-32000, AgentError),
        (-32099, AgentError),
        (1, AgentError),
        (0, AgentError),
    ],
)
def test_json_rpc_error_means(code: int, kind: type[AgentCallFailed]):
    with pytest.raises(AgentCallFailed) as caught:
        result_of(answer(error={"code": code, "message": "no"}), CALL)
    assert (type(caught.value), str(caught.value)) == (kind, f"{WHO}answered error {code}: no")


@pytest.mark.parametrize("without_id", [{"id": None}, {}])
def test_error_about_a_request_whose_id_was_not_read_is_taken(without_id: JsonObject):
    body = json.dumps({"jsonrpc": "2.0", "error": {"code": -32600, "message": "no"}} | without_id).encode()
    with pytest.raises(AgentRejected):
        result_of(body, CALL)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "the answer (0 bytes) is not JSON"),
        (b"<html>oh</html>", "the answer (15 bytes) is not JSON"),
        (b"\xff\xfe", "the answer (2 bytes) is not JSON"),
        (answer(result=1)[:-1], "is not JSON"),
        (answer(result=1) + answer(result=1), "is not JSON"),
        (b'{"jsonrpc":"2.0","id":"r-1","result":NaN}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "the answer is not a JSON object"),
        (answer(jsonrpc="1.0", result=1), "the answer is not JSON-RPC 2.0"),
        (answer(), "the answer has neither result nor error"),
        (answer(error=None), "the answer has neither result nor error"),
        (answer(result=1, error={"code": 1}), "the answer has both result and error"),
        (answer(error="no"), "the answer's error has no integer code"),
        (answer(error={"code": "1"}), "the answer's error has no integer code"),
        (answer(error={"code": True}), "the answer's error has no integer code"),
        (answer(result=1, id="r-2"), "the answer's id is missing or not the request's"),
        (answer(result=1, id=None), "the answer's id is missing or not the request's"),
        (b'{"result":1}', "the answer's id is missing or not the request's"),
        (answer(error={"code": 1}, id="r-2"), "the answer's id is missing or not the request's"),
    ],
)
def test_malformed_answer_is_a_protocol_error(body: bytes, what: str):
    with pytest.raises(AgentProtocolError) as caught:
        result_of(body, CALL)
    assert what in str(caught.value)


def test_agents_message_is_cut_at_200_characters_on_one_printable_line():
    body = answer(error={"code": 1, "message": "a\r\nb\x1b[31m\u2028" + "x" * 1000})
    with pytest.raises(AgentError) as caught:
        result_of(body, CALL)
    assert str(caught.value) == f"{WHO}answered error 1: " + ("a b?[31m " + "x" * 1000)[:200]


def test_body_of_an_http_failure_is_quoted_only_where_it_is_a_json_rpc_message():
    quoted = http_failure(CALL, 400, None, answer(error={"code": 1, "message": "bad"}))
    silent = http_failure(CALL, 400, None, b"the secret prompt was bad")
    assert (str(quoted), str(silent)) == (f"{WHO}answered HTTP 400: bad", f"{WHO}answered HTTP 400")


@pytest.mark.parametrize(
    "result",
    [
        {"type": "full", "index": 0, "parent_task_message": None, "content": TEXT},
        TEXT,
        [TEXT],
        {"id": "m", "task_id": "t", "content": TEXT, "streaming_status": "DONE"},
        [{"id": "m", "task_id": "t", "content": TEXT}],
    ],
    ids=["update", "content", "contents", "message", "messages"],
)
def test_answer_to_message_send_is_read_in_each_form(result: Json):
    assert updates_of(answer(result=result), CALL) == [FULL]


def test_null_answer_to_message_send_has_no_update():
    assert updates_of(answer(result=None), CALL) == []


@pytest.mark.parametrize(
    ("result", "named"),
    [
        ({"type": "delta", "index": 0, "delta": {"type": "video", "video_delta": "x"}}, "'video'"),
        ({"type": "progress", "index": 0}, "'progress'"),
        ({"type": "full", "index": 0, "content": {"type": "hologram"}}, "'hologram'"),
        ({"type": "full", "index": -1, "content": TEXT}, "index"),
        ({"type": "text", "author": "agent"}, "content"),
        ("words", "update"),
        ([1], "update"),
    ],
)
def test_unknown_or_malformed_update_is_a_protocol_error_that_names_it(result: Json, named: str):
    with pytest.raises(AgentProtocolError, match=named):
        updates_of(answer(result=result), CALL)


def test_validation_error_quotes_no_value():
    with pytest.raises(AgentProtocolError) as caught:
        updates_of(answer(result=TEXT | {"content": {"secret": "prompt"}}), CALL)
    assert "prompt" not in str(caught.value)


@pytest.mark.parametrize("rest", [b"", b"  \r\n"])
def test_nothing_behind_the_last_newline_is_a_clean_end(rest: bytes):
    assert last_updates_of(rest, CALL) == []


def test_last_line_without_newline_counts():
    assert last_updates_of(answer(result=TEXT), CALL) == [FULL]


def test_half_a_last_line_is_a_cut_but_garbage_is_garbage():
    with pytest.raises(OutcomeUnknown):
        last_updates_of(answer(result=TEXT)[:-5], CALL)
    with pytest.raises(AgentProtocolError):
        last_updates_of(b"<html>", CALL)
