"""How the scriptable ACP agent answers: what a script can say, and the bytes it turns into."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from aiohttp import web
from pydantic import JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]

SAME_ID = "(the request's id)"


@dataclass(frozen=True)
class Reply:
    """How one request is answered. Reply() is what a real agent says; each field changes one thing.

    hang: wait for release(), before answering or behind the updates of a stream.
    close: end the connection instead of answering ("close" a FIN, "reset" an RST).
    cut: of a stream, end the connection behind the updates and `tail` instead of finishing the answer.
    """

    delay_seconds: float = 0
    hang: Literal["no", "before", "in_stream"] = "no"
    close: Literal["no", "close", "reset"] = "no"
    raw: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: str | None = None
    body_bytes: int = 0
    content_type: str | None = None
    error_code: int | None = None
    error_message: str = "scripted"
    answer_id: JsonValue = SAME_ID
    result: JsonValue = "(default)"
    updates: list[JsonObject] | None = None
    deltas: int = 0
    tail: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Script:
    """Replies for one method's requests, in order; `task_name` is a glob that the task's name must match."""

    method: str
    replies: list[Reply]
    repeat: bool = False
    task_name: str = "*"


def _text(content: str) -> JsonObject:
    return {"type": "text", "author": "agent", "style": "static", "format": "plain", "content": content}


def _full(content: str) -> JsonObject:
    return {"type": "full", "index": 0, "parent_task_message": None, "content": _text(content)}


_DEFAULT_RESULTS: dict[str, bytes] = {
    "task/create": b"null",
    "event/send": b'{"status":"processing"}',
    "task/cancel": b'{"status":"processing"}',
    "task/interrupt": b'{"status":"processing"}',
    "message/send": json.dumps(_full("Hello")).encode(),
}


def default_answer(method: str, request_id: JsonValue) -> web.Response:
    result = _DEFAULT_RESULTS.get(method)
    if result is None:
        error: JsonObject = {"code": -32601, "message": "Method not found"}
        return web.Response(body=line(request_id, error=error), content_type="application/json")
    body = b'{"jsonrpc":"2.0","result":' + result + b',"error":null,"id":' + json.dumps(request_id).encode()
    kind = "application/x-ndjson" if method == "message/send" else "application/json"
    return web.Response(body=body + b"}\n", content_type=kind)


def whole_answer(reply: Reply, document: JsonObject) -> web.Response:
    request_id = answer_id(reply, document)
    if reply.body is not None:
        body = reply.body.encode()
    elif reply.body_bytes:
        body = line(request_id, result="x" * reply.body_bytes)
    elif reply.error_code is not None:
        body = line(request_id, error=error_of(reply))
    elif reply.result != "(default)":
        body = line(request_id, result=reply.result)
    elif reply.status == 200:
        default = default_answer(str(document["method"]), request_id)
        body = cast("bytes", default.body)
        return web.Response(
            body=body, headers=reply.headers, content_type=reply.content_type or default.content_type
        )
    else:
        body = b""
    return web.Response(
        status=reply.status,
        body=body,
        headers=reply.headers,
        content_type=reply.content_type or "application/json",
    )


def break_off(request: web.Request, reply: Reply) -> web.Response:
    transport = request.transport
    if transport is not None:
        if reply.raw is not None:
            transport.write(reply.raw.encode("latin-1"))
        if reply.close == "reset":
            peer = cast("socket.socket", transport.get_extra_info("socket"))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.close()
    return web.Response()


def answer_id(reply: Reply, document: JsonObject) -> JsonValue:
    return document.get("id") if reply.answer_id == SAME_ID else reply.answer_id


def error_of(reply: Reply) -> JsonObject:
    return {"code": reply.error_code, "message": reply.error_message, "data": None}


def text_deltas(count: int) -> list[JsonObject]:
    """A text of `count` words, one delta each, with its start and done; nothing for 0."""
    if count == 0:
        return []
    updates: list[JsonObject] = [{"type": "start", "index": 0, "content": _text("")}]
    for number in range(count):
        delta: JsonObject = {"type": "text", "text_delta": f"word{number} "}
        updates.append({"type": "delta", "index": 0, "delta": delta})
    updates.append({"type": "done", "index": 0})
    return updates


def line(request_id: JsonValue, *, result: JsonValue = None, error: JsonValue = None) -> bytes:
    answer = {"jsonrpc": "2.0", "result": result, "error": error, "id": request_id}
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"
