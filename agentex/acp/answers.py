"""What an agent's answer means: a result, updates, or one of the failures of AgentCallFailed. Pure.

A failure's message names the agent's host and port and the method, and at most 200 characters of the
agent's own error message: bodies are never quoted, nor anything that we sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TypeGuard

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from yarl import URL

from agentex.acp.messages import AcpCall, FullUpdate, Json, JsonObject, MessageContent, StreamUpdate
from agentex.errors import (
    AgentCallFailed,
    AgentError,
    AgentMethodUnknown,
    AgentProtocolError,
    AgentRejected,
    AgentUnreachable,
    OutcomeUnknown,
)

AGENT_MESSAGE_CHARACTERS = 200
# An agent that asks for more is asked again anyway: a run's retries end after 600 s by default.
RETRY_AFTER_MAX_SECONDS = 600
# Invalid request, method not found, invalid params (JSON-RPC 2.0 §5.1): the fault is in what we sent.
_REJECTED_CODES = frozenset({-32600, -32601, -32602})
_METHOD_NOT_FOUND = -32601
_UPDATE_TYPES = frozenset({"start", "delta", "full", "done"})

_stream_update: TypeAdapter[StreamUpdate] = TypeAdapter(StreamUpdate)
_content: TypeAdapter[MessageContent] = TypeAdapter(MessageContent)


@lru_cache(maxsize=1024)
def base_url(acp_url: str) -> URL:
    """An agent's address as it was registered.

    One that is none cannot have been reached, so it raises AgentUnreachable.
    """
    try:
        url = URL(acp_url)
        # Reading the host decodes it, e.g. fails for xn--.
        is_one = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        url, is_one = URL(), False
    if not is_one:
        raise AgentUnreachable("the agent's acp_url is not an http or https address with a host")
    return url


def about(call: AcpCall, what: str) -> str:
    """A failure's message: which agent (never a path or credentials), which method, what happened."""
    url = base_url(call.acp_url)
    return f"agent {url.host_subcomponent}:{url.port}, {call.method}: {what}"


def http_failure(call: AcpCall, status: int, retry_after: str | None, body: bytes) -> AgentCallFailed:
    """What an answer outside 2xx means; `retry_after` is the header's value."""
    message = about(call, f"answered HTTP {status}{_quoted(_rpc_message(body))}")
    wait_seconds = retry_after_seconds(retry_after, datetime.now(UTC))
    if status == 429 or (status == 503 and wait_seconds is not None):
        return AgentUnreachable(message, retry_after_seconds=wait_seconds)
    if status >= 500 or status == 408:
        return AgentError(message)
    if status >= 400:
        return AgentRejected(message)
    # A redirect is no refusal of this input, and following it would send the input where nobody registered.
    return AgentProtocolError(about(call, f"answered HTTP {status}; redirects are not followed"))


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Retry-After as seconds from now, 0 to 600; None where it is neither seconds nor an HTTP date."""
    if value is None:
        return None
    text = value.strip()
    # More digits than a float of seconds needs are as good as the cap (and int() has a limit on them).
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), RETRY_AFTER_MAX_SECONDS))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0.0), RETRY_AFTER_MAX_SECONDS)


def result_of(body: bytes, call: AcpCall) -> Json:
    """The result of one JSON-RPC answer; None is a result too.

    Raises AgentError or AgentRejected for an error by its code, AgentProtocolError for anything malformed.
    """
    document = _document(body, call)
    if document.get("error") is not None:
        raise _rpc_failure(document, call)
    if "result" not in document:
        raise AgentProtocolError(about(call, "the answer has neither result nor error"))
    _check_id(document, call)
    return document["result"]


def updates_of(body: bytes, call: AcpCall) -> list[StreamUpdate]:
    """The updates in one line of a stream, or in one plain JSON answer (an update, contents or messages)."""
    result = result_of(body, call)
    parts = result if isinstance(result, list) else [] if result is None else [result]
    try:
        return [_update(part, index) for index, part in enumerate(parts)]
    except ValidationError as error:
        raise AgentProtocolError(about(call, _validation_text(error))) from None


def last_updates_of(rest: bytes, call: AcpCall) -> list[StreamUpdate]:
    """The same for what stands behind the last newline: half a line is a cut, not garbage."""
    if not rest.strip():
        return []
    try:
        from_json(rest, allow_inf_nan=False)
    except ValueError:
        if rest.lstrip().startswith(b"{"):
            raise OutcomeUnknown(about(call, "the stream ended in the middle of a line")) from None
    return updates_of(rest, call)


def _document(body: bytes, call: AcpCall) -> JsonObject:
    try:
        # NaN and Infinity are not JSON, and Postgres would refuse them later.
        document: Json = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise AgentProtocolError(about(call, f"the answer ({len(body)} bytes) is not JSON")) from None
    if not isinstance(document, dict):
        raise AgentProtocolError(about(call, "the answer is not a JSON object"))
    if document.get("jsonrpc", "2.0") != "2.0":
        raise AgentProtocolError(about(call, "the answer is not JSON-RPC 2.0"))
    return document


def _rpc_failure(document: JsonObject, call: AcpCall) -> AgentCallFailed:
    error = document["error"]
    if document.get("result") is not None:
        return AgentProtocolError(about(call, "the answer has both result and error"))
    if not isinstance(error, dict) or not _is_integer(code := error.get("code")):
        return AgentProtocolError(about(call, "the answer's error has no integer code"))
    # JSON-RPC 2.0 §5: an error about a request whose id could not be read carries null.
    if document.get("id") is not None:
        _check_id(document, call)
    message = about(call, f"answered error {code}{_quoted(error.get('message'))}")
    if code == _METHOD_NOT_FOUND:
        return AgentMethodUnknown(message)
    return AgentRejected(message) if code in _REJECTED_CODES else AgentError(message)


def _check_id(document: JsonObject, call: AcpCall) -> None:
    if document.get("id") != call.request_id:
        raise AgentProtocolError(about(call, "the answer's id is missing or not the request's"))


def _update(part: Json, index: int) -> StreamUpdate:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind is None and isinstance(part.get("content"), dict):
        return FullUpdate(index=index, content=_content.validate_python(part["content"]))
    # What is no content is read as an update, so that an unknown type is named as one.
    if isinstance(kind, str) and kind in _CONTENT_TYPES:
        return FullUpdate(index=index, content=_content.validate_python(part))
    return _stream_update.validate_python(part)


_CONTENT_TYPES = frozenset({"text", "data", "tool_request", "tool_response", "reasoning"})


def _validation_text(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"an update is not valid{f' at {place}' if place else ''}{_quoted(first['msg'])}"


def _rpc_message(body: bytes) -> Json:
    try:
        document: Json = from_json(body)
    except ValueError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    return error.get("message") if isinstance(error, dict) else None


def _quoted(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        return ""
    # One printable line, so that an agent cannot forge a log line.
    line = "".join(_printable(" ".join(text[: 4 * AGENT_MESSAGE_CHARACTERS].split())))
    return f": {line[:AGENT_MESSAGE_CHARACTERS]}"


def _printable(text: str) -> Iterable[str]:
    return (character if character.isprintable() else "?" for character in text)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
