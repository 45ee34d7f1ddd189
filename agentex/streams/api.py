"""/tasks/…/stream: what happens in a task, as server-sent events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from agentex.deps import Caller, ResourcesDep
from agentex.resources import Resources
from agentex.streams import service
from agentex.streams.admission import Admission
from agentex.streams.models import TaskStreamUpdate
from agentex.streams.response import NOT_KEPT, EventStreamResponse
from agentex.tasks import service as tasks
from agentex.tasks.models import Task

router = APIRouter(prefix="/tasks", tags=["tasks"])

LastEventId = Annotated[
    str | None,
    Header(
        description="The id of the last event that came: the stream goes on behind it, without loss or repeat"
    ),
]


async def _admission(request: Request, resources: ResourcesDep, caller: Caller) -> Admission:
    return Admission(caller, request.headers, resources.authz.authenticate)


# The caller, and how it is authenticated again while the stream is open.
AdmissionDep = Annotated[Admission, Depends(_admission)]
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": TaskStreamUpdate,
        "description": "Server-sent events; the data of each is one TaskStreamUpdate in JSON",
    },
    204: {"description": "The task has ended, and the event of this Last-Event-ID was its last"},
}


# Before `/name/{name:path}` of the tasks: a name may hold a slash.
@router.get(
    "/name/{name:path}/stream", status_code=200, response_class=EventStreamResponse, responses=_EVENTS
)
async def stream_task_by_name(
    name: str, resources: ResourcesDep, admission: AdmissionDep, last_event_id: LastEventId = None
) -> Response:
    """What happens in the task of this name, as server-sent events; as by id."""
    # The session is given back before the stream begins, which may have to wait for one of its own.
    async with resources.db.read() as session:
        task = await tasks.get_by_name(session, resources.authz, admission.principal, name)
    return await _answer(resources, admission, task, last_event_id)


@router.get("/{task_id}/stream", status_code=200, response_class=EventStreamResponse, responses=_EVENTS)
async def stream_task(
    task_id: str, resources: ResourcesDep, admission: AdmissionDep, last_event_id: LastEventId = None
) -> Response:
    """What happens in a task from now on, as server-sent events; of a task that has ended, all that did.

    The first is `connected`. Each message comes as `full`, or, while it is being written, as `start`, any
    number of `delta` and `done` (or `full`, which takes the place of what came before it). The stream ends
    behind a `task_updated` with a terminal status, or behind an `error`. A comment comes every 15 s.
    """
    async with resources.db.read() as session:
        task = await tasks.get(session, resources.authz, admission.principal, task_id)
    return await _answer(resources, admission, task, last_event_id)


async def _answer(
    resources: Resources, admission: Admission, task: Task, last_event_id: str | None
) -> Response:
    stream = await service.open_stream(resources, admission, task, last_event_id)
    # Whoever connects again by itself behind the end of each answer does so for ever, but for 204
    # (https://html.spec.whatwg.org/multipage/server-sent-events.html, "reestablish the connection").
    return EventStreamResponse(stream) if stream else Response(status_code=204, headers=NOT_KEPT)
