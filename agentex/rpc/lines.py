"""The lines of an answer to message/send: JSON-RPC, put together from parts that are JSON already. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json

from agentex.acp.messages import StreamUpdate
from agentex.messages.models import MessageRead
from agentex.rpc.models import INTERNAL_ERROR, RpcError, RpcResponse

RequestId = int | str | None

_RESULT = b'{"jsonrpc":"2.0","result":'
_ERROR = b'{"jsonrpc":"2.0","result":null,"error":{'
_NO_ERROR = b',"error":null,"id":'


def message_json(message: MessageRead) -> bytes:
    """A TaskMessage."""
    return message.model_dump_json().encode()


def result_line(request_id: RequestId, messages: Sequence[bytes]) -> bytes:
    """The whole answer: its messages, each JSON."""
    return b"".join((_RESULT, b"[", b",".join(messages), b"]", _NO_ERROR, to_json(request_id), b"}\n"))


def update_line(request_id: RequestId, update: StreamUpdate, index: int, parent: bytes | None) -> bytes:
    """One update of the answer, with the stored message that it belongs to (JSON)."""
    # Each update is an object with at least its type, so that members can stand behind those it has.
    body = update.model_dump_json(exclude={"index", "parent_task_message"}).encode()
    tail = b',"index":%d,"parent_task_message":%b}' % (index, parent or b"null")
    return b"".join((_RESULT, body[:-1], tail, _NO_ERROR, to_json(request_id), b"}\n"))


def error_line(request_id: RequestId, message: str) -> bytes:
    """An error in the answer's place, or behind the updates that came before it."""
    error = RpcError(code=INTERNAL_ERROR, message=message)
    return RpcResponse(error=error, id=request_id).model_dump_json().encode() + b"\n"


def is_error_line(line: bytes) -> bool:
    """Whether the line is what error_line makes."""
    return line.startswith(_ERROR)
