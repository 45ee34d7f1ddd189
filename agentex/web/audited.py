"""Leaves an entry in the audit for each request that changes something, before its answer goes out."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from uuid import UUID

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentex.audit.models import Outcome
from agentex.audit.service import Entry, add
from agentex.auth.principal import DEFAULT_ACCOUNT, Principal
from agentex.database import DATABASE_ERRORS
from agentex.errors import AgentexError
from agentex.noted import Audited, note_in
from agentex.resources import Resources
from agentex.rpc.respond import CLIENT_GONE
from agentex.telemetry.metrics import AUDIT_ENTRIES_LOST

log = logging.getLogger(__name__)

ANONYMOUS = "anonymous"
MUTATING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# They read, and have their question in a body.
READING_OPERATIONS = frozenset({"get_checkpoint_tuple", "list_checkpoints"})
# What is refused before it is asked who calls: a body that is no JSON, or too large.
_BEFORE_THE_CALLER = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
# By the words of paths; what stands behind one is its id, or `name` and its name.
_COLLECTIONS = {
    **{f"{kind}s": kind for kind in Audited if kind is not Audited.OTHER},
    "tracker": Audited.TRACKER,
}
# Their ids are texts of their makers' choice; all others are UUIDs.
_NAMED_BY_TEXT = frozenset({Audited.SPAN, Audited.CHECKPOINT})
_NAME = "name"


class Audit:
    """Stands around the routes, their error answers included; a refusal of the edge has no route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in MUTATING_METHODS:
            await self._app(scope, receive, send)
            return
        audited = _Audited(scope, send)
        try:
            await self._app(scope, receive, audited.send)
        finally:
            # One that ends without an answer, such as at the end of a drain, may have done its work.
            await audited.leave(HTTPStatus.INTERNAL_SERVER_ERROR)


class _Audited:
    """One request; its entry is left once, however it is answered."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._is_left = False
        self._held: Message | None = None

    async def send(self, message: Message) -> None:
        """Send on, behind the entry. An answer that may tell an id is held until that can be read."""
        if message["type"] == "http.response.start":
            if self._tells_id(message):
                self._held = message
                return
            await self.leave(message["status"])
        elif self._held is not None:
            held, self._held = self._held, None
            # One with a Content-Length comes whole.
            await self.leave(held["status"], message.get("body", b""))
            await self._send(held)
        await self._send(message)

    async def leave(self, status: int, body: bytes = b"") -> None:
        """Write the entry, unless that is done or nothing is changed by the route."""
        if self._is_left:
            return
        self._is_left = True
        route = _mutating_route(self._scope)
        if route is None:
            return
        resources: Resources = self._scope["app"].state.resources
        entry = await self._entry(resources, route, status, body)
        try:
            await resources.db.together(add, entry)
        except DATABASE_ERRORS as error:
            # What was done is done: an error as the answer would have it done again. The log keeps it.
            AUDIT_ENTRIES_LOST.inc()
            log.error(  # noqa: TRY400 - an error's text quotes values
                "an entry of the audit could not be written",
                extra={"action": "audit.lost", "error": type(error).__name__, **_logged(entry)},
            )

    def _tells_id(self, start: Message) -> bool:
        route = _mutating_route(self._scope)
        if route is None or start["status"] >= HTTPStatus.BAD_REQUEST:
            return False
        _, parameter = subject(route.path_format)
        headers = Headers(raw=start["headers"])
        is_whole = headers.get("content-type") == "application/json" and "content-length" in headers
        note = note_in(self._scope)
        # JSON-RPC's id is that of the request.
        is_open = note.resource_id is None and note.rpc_method is None
        return is_whole and is_open and parameter in {None, _NAME}

    async def _entry(self, resources: Resources, route: APIRoute, status: int, body: bytes) -> Entry:
        note = note_in(self._scope)
        caller = note.principal or await self._late_caller(resources, status)
        kind, id_ = self._resource(route, body)
        headers = Headers(scope=self._scope)
        client = self._scope.get("client")
        return Entry(
            account_id=caller.account_id if caller else DEFAULT_ACCOUNT,
            principal=caller.creator if caller else ANONYMOUS,
            operation=route.name,
            rpc_method=note.rpc_method,
            resource_type=kind,
            resource_id=id_,
            agent_id=_uuid(self._scope["path_params"].get("agent_id")),
            outcome=outcome_of(note.status or status),
            status=status,
            request_id=note.request_id,
            address=client[0] if client else "",
            user_agent=headers.get("user-agent"),
        )

    async def _late_caller(self, resources: Resources, status: int) -> Principal | None:
        if status not in _BEFORE_THE_CALLER:
            return None
        try:
            return await resources.authz.authenticate(Headers(scope=self._scope))
        except (AgentexError, *DATABASE_ERRORS):
            return None

    def _resource(self, route: APIRoute, body: bytes) -> tuple[Audited, str | None]:
        note = note_in(self._scope)
        kind, parameter = subject(route.path_format)
        if note.resource_type is not None and note.resource_id is not None:
            return note.resource_type, note.resource_id
        given: str | None = self._scope["path_params"].get(parameter) if parameter else None
        if parameter is not None and parameter.endswith("_id") and kind not in _NAMED_BY_TEXT:
            # What is no id may be anything, such as a key in the wrong place.
            return kind, _uuid(given)
        return kind, _told_id(body) or given


@lru_cache(maxsize=256)
def subject(path: str) -> tuple[Audited, str | None]:
    """What the template of a path is about, and the parameter that says which one; None: it is a new one."""
    words = [word for word in path.split("/") if word]
    places = [place for place, word in enumerate(words) if word in _COLLECTIONS]
    if not places:
        return Audited.OTHER, None
    behind = [word.strip("{}") for word in words[places[-1] + 1 :] if word.startswith("{")]
    return _COLLECTIONS[words[places[-1]]], behind[0] if behind else None


def is_mutating(method: str, operation: str) -> bool:
    """Whether requests of an operation leave entries."""
    return method in MUTATING_METHODS and operation not in READING_OPERATIONS


def _mutating_route(scope: Scope) -> APIRoute | None:
    route = scope.get("route")
    # The route of another method is what a 405 leaves behind.
    if not isinstance(route, APIRoute) or scope["method"] not in route.methods:
        return None
    return route if is_mutating(scope["method"], route.name) else None


def outcome_of(status: int) -> Outcome:
    """How a request ended; one whose client has gone may have done its work."""
    if status == CLIENT_GONE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.FAILED
    if status == HTTPStatus.FORBIDDEN:
        return Outcome.DENIED
    return Outcome.REFUSED if status >= HTTPStatus.BAD_REQUEST else Outcome.DONE


def _told_id(body: bytes) -> str | None:
    if not body.startswith(b"{"):
        return None
    # Our own answer.
    found: Any = json.loads(body).get("id")
    return found if isinstance(found, str) else None


def _uuid(value: object) -> str | None:
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _logged(entry: Entry) -> dict[str, object]:
    return {f"audit_{name}": value for name, value in asdict(entry).items()}
