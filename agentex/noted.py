"""What is found out about a request on its way, for the audit: who calls, what it is about, how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import cast
from uuid import UUID

from starlette.requests import HTTPConnection
from starlette.types import Scope

from agentex.auth.principal import Principal

_NOTE = "agentex.note"


class Audited(StrEnum):
    """What a request that changes something is about."""

    AGENT = "agent"
    AGENT_API_KEY = "agent_api_key"
    API_KEY = "api_key"
    CHECKPOINT = "checkpoint"
    DEPLOYMENT = "deployment"
    EVENT = "event"
    GRANT = "grant"
    MEMBER = "member"
    MESSAGE = "message"
    RUN = "run"
    SCHEDULE = "schedule"
    SPAN = "span"
    STATE = "state"
    TASK = "task"
    TRACKER = "tracker"
    # Of a route whose path names none of them.
    OTHER = "other"


@dataclass(slots=True)
class Note:
    """Empty at first; each part of the way fills in what it knows and the path does not say."""

    # Under which it is answered and logged.
    request_id: str | None = None
    principal: Principal | None = None
    resource_type: Audited | None = None
    resource_id: str | None = None
    rpc_method: str | None = None
    # How it ended as an HTTP status, where an error is answered as 200.
    status: int | None = None

    def concerns(self, kind: Audited, id_: object) -> None:
        """The request is about this one; what is neither an id nor text names nothing."""
        if isinstance(id_, str | UUID):
            self.resource_type, self.resource_id = kind, str(id_)


def note_of(request: HTTPConnection) -> Note:
    """The note of this request."""
    return note_in(request.scope)


def note_in(scope: Scope) -> Note:
    """The same by the request's ASGI scope."""
    found = scope.get(_NOTE)
    if found is None:
        found = scope[_NOTE] = Note()
    return cast("Note", found)
