"""Problems of JSON-RPC requests: HTTP errors that are JSON-RPC errors as well, under the request's id.

What is wrong with a request to an agent is a 200 with an error (JSON-RPC's way). What is wrong with the HTTP
request that carries it (no JSON, no agent of that name, too large) has a status that says so, which typed
clients raise by; its body is both.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, cast

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic_core import from_json

from agentex.database import JsonObject
from agentex.rpc.models import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR


async def as_rpc(request: Request, answer: JSONResponse) -> JSONResponse:
    """The problem with JSON-RPC's members too, where the request was one; else as it is."""
    too_large = answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if not request.scope["path"].endswith("/rpc") or request.method != "POST":
        return answer
    # Read already by whoever refused it; one that is too large never is.
    body = b"" if too_large else await request.body()
    problem: JsonObject = json.loads(bytes(answer.body))
    document = _read(body)
    error = {"code": _code(answer.status_code, document), "message": problem["detail"], "data": None}
    rpc = {"jsonrpc": "2.0", "id": _id_of(document), "result": None, "error": error}
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return type(answer)({**problem, **rpc}, status_code=answer.status_code, headers=headers)


def _read(body: bytes) -> JsonObject | None:
    """The request as JSON; None for what is no JSON, empty for what is no object."""
    try:
        document: Any = from_json(body)
    except ValueError:
        return None
    return cast("JsonObject", document) if isinstance(document, dict) else {}


def _id_of(document: JsonObject | None) -> int | str | None:
    found = document.get("id") if document else None
    return found if isinstance(found, int | str) and not isinstance(found, bool) else None


def _code(status: int, document: JsonObject | None) -> int:
    if status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return INTERNAL_ERROR
    if document is None:
        return PARSE_ERROR
    is_request = isinstance(document.get("method"), str) and isinstance(document.get("params", {}), dict)
    return INVALID_PARAMS if is_request else INVALID_REQUEST
