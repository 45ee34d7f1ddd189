"""Errors on the wire: problem details (RFC 9457) that also carry the wire's message, code and data."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import Scope

from agentex.database import DEADLOCK, is_unavailable, sqlstate
from agentex.errors import (
    AgentexError,
    DatabaseUnavailable,
    InvalidInput,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
)
from agentex.rates import CREDENTIAL_MARK, Rates
from agentex.telemetry.faults import named
from agentex.validation import describe
from agentex.web.bodies import body_limit
from agentex.web.rpc_problems import as_rpc

log = logging.getLogger(__name__)

# The wire's code of a validation error (wire.md §0.5).
VALIDATION_CODE = 10422
# 4xx answers that a later repeat may find otherwise.
_WORTH_A_REPEAT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
# Text that Postgres cannot store: NUL, or bytes outside its encoding (postgresql.org, appendix A).
_UNSTORABLE = frozenset({"22021", "22P05"})
# Numbers and instants beyond their type: refused by the driver, or by Postgres.
_OUT_OF_RANGE = frozenset({"22000", "22003", "22008"})


# Ten errors of a validation, each with a place, a value and what would be right (validation.py).
DETAIL_CHARACTERS = 5_000


class Problem(BaseModel):
    """What went wrong: RFC 9457's members, then those that clients of the wire read."""

    type: str = Field(examples=["urn:agentex:problem:not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str
    instance: str = Field(description="The path that was asked for")
    message: str = Field(description="The same as detail")
    code: int = Field(description="The same as status, but 10422 for a validation error")
    data: None = None
    status_code: int | None = Field(default=None, description="Only of a validation error: 10422")


def client_address(scope: Scope) -> str:
    """Who asks, by address, as the edge has found it out; empty where that is not known."""
    client = scope.get("client")
    return client[0] if client else ""


class ProblemResponse(JSONResponse):
    """A problem as the answer."""

    media_type = "application/problem+json"


def problem(
    path: str, status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> ProblemResponse:
    """An answer with this status; permanent ones tell clients that a repeat is useless."""
    if len(detail) > DETAIL_CHARACTERS:
        # It quotes what came in, which may be as long as a query.
        detail = detail[: DETAIL_CHARACTERS - 1] + "…"
    body = Problem(
        type=f"urn:agentex:problem:{code}",
        title=code.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        instance=quote(path),
        message=detail,
        code=VALIDATION_CODE if status == HTTPStatus.UNPROCESSABLE_ENTITY else status,
        status_code=VALIDATION_CODE if status == HTTPStatus.UNPROCESSABLE_ENTITY else None,
    )
    content = body.model_dump(exclude={"status_code"} if body.status_code is None else None)
    all_headers = dict(headers or {})
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _WORTH_A_REPEAT:
        all_headers["x-should-retry"] = "false"
    return ProblemResponse(content, status_code=status, headers=all_headers)


def problem_of(path: str, error: AgentexError) -> ProblemResponse:
    """The answer for an error of ours; with Retry-After where a repeat may help."""
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable | RateLimited):
        headers["retry-after"] = str(math.ceil(error.retry_after_seconds))
    if isinstance(error, RequestTimeout):
        # The rest of the body is not waited for.
        headers["connection"] = "close"
    return problem(path, error.status, error.code, error.message, headers)


def too_large(path: str, max_bytes: int) -> ProblemResponse:
    """The answer to a body over the limit."""
    return problem_of(path, PayloadTooLarge(f"the request's body is larger than {max_bytes} bytes"))


async def _on_agentex_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AgentexError)  # noqa: S101 - registered for it
    if isinstance(error, Unauthorized):
        rates: Rates = request.app.state.rates
        rates.failed(client_address(request.scope), request.scope.get(CREDENTIAL_MARK, b""))
    return await as_rpc(request, problem_of(request.scope["path"], error))


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    path, message = request.scope["path"], describe(error.errors())
    return await as_rpc(request, problem(path, InvalidInput.status, InvalidInput.code, message))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return await as_rpc(request, _of_http_exception(request, error))


def _of_http_exception(request: Request, error: HTTPException) -> ProblemResponse:
    path = request.scope["path"]
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return too_large(path, body_limit(request.app.state.settings, path))
    if isinstance(error.__cause__, AgentexError):
        # Of a body that is not there in time, which FastAPI takes for one that cannot be read.
        return problem_of(path, error.__cause__)
    if isinstance(error.__cause__, RecursionError | ValueError):
        # What FastAPI answers 400 to, without a reason.
        message = "is not JSON in UTF-8, is nested too deep, or holds a number of thousands of digits"
        return problem_of(path, InvalidInput("body", message))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return problem(path, error.status_code, code, str(error.detail), dict(error.headers or {}))


async def _on_database_error(request: Request, error: Exception) -> ProblemResponse:
    state = sqlstate(error) if isinstance(error, DBAPIError) else ""
    if is_unavailable(error) or state == DEADLOCK:
        return problem_of(request.scope["path"], DatabaseUnavailable())
    if state in _UNSTORABLE:
        message = "holds a character that cannot be stored, such as NUL; leave it out"
        return problem_of(request.scope["path"], InvalidInput("request", message))
    if state in _OUT_OF_RANGE or _is_overflow(error):
        # A fault of ours could look the same, so it is not passed over in silence.
        log.warning("a value is out of range", extra={"action": "request.range", "error": _cause(error)})
        message = "holds a number or an instant outside the range that can be stored"
        return problem_of(request.scope["path"], InvalidInput("request", message))
    raise error


def _cause(error: Exception) -> str:
    """What the driver says it was, without the value that it quotes."""
    return named(error.orig if isinstance(error, StatementError) and error.orig else error)


def _is_overflow(error: Exception) -> bool:
    return isinstance(error, StatementError) and isinstance(error.orig, OverflowError)


async def _on_unexpected(request: Request, error: Exception) -> ProblemResponse:
    return problem_of(request.scope["path"], AgentexError())


def add_problem_handlers(app: FastAPI) -> None:
    """Every error leaves as a problem. What nobody foresaw is logged and counted by the edge."""
    app.add_exception_handler(AgentexError, _on_agentex_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for kind in (StatementError, PoolTimeout, OSError):
        app.add_exception_handler(kind, _on_database_error)
    app.add_exception_handler(Exception, _on_unexpected)
