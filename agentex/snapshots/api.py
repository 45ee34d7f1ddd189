"""/tasks/{id}/export, clean, rehydrate: a task's content is taken out, removed, and put back."""

from __future__ import annotations

import json
from typing import Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from agentex.deps import Caller, ResourcesDep
from agentex.errors import PayloadTooLarge
from agentex.snapshots import service
from agentex.snapshots.export import export
from agentex.snapshots.models import Snapshot, SnapshotRestore, TaskClean, TaskCleaned
from agentex.snapshots.parts import PARTS
from agentex.tasks import service as tasks

router = APIRouter(prefix="/tasks", tags=["snapshots"])


async def _refuse_many_entries(request: Request, resources: ResourcesDep) -> None:
    """A body above max_snapshot_bytes may have one entry: each costs time, its bytes hardly any."""
    body, limit = await request.body(), resources.settings.max_snapshot_bytes
    if len(body) <= limit:
        return
    try:
        # As the route's own parser has it by now: it is parsed once.
        document: Any = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        # Said better by that parser.
        return
    given = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    parts = [given.get(part.name) for part in PARTS]
    if sum(len(cast("list[Any]", part)) for part in parts if isinstance(part, list)) > 1:
        raise PayloadTooLarge(
            f"a snapshot of more than {limit} bytes may have one entry only (AGENTEX_MAX_SNAPSHOT_BYTES); "
            "send it in pieces, each with more: true but the last"
        )


# Takes larger bodies than all else.
restore_router = APIRouter(prefix="/tasks", tags=["snapshots"], dependencies=[Depends(_refuse_many_entries)])


@router.get("/{task_id}/export", response_model=Snapshot)
async def export_task(task_id: str, resources: ResourcesDep, caller: Caller) -> StreamingResponse:
    """A task with all that hangs on it, as one document that comes in pieces; rehydrate takes it."""
    async with resources.db.read() as session:
        task = await tasks.get(session, resources.authz, caller, task_id)
        read = await tasks.with_agents(session, task)
    return StreamingResponse(export(resources, read), media_type="application/json")


@router.post("/{task_id}/clean")
async def clean_task(
    task_id: str, resources: ResourcesDep, caller: Caller, body: TaskClean | None = None
) -> TaskCleaned:
    """Remove the content of a task that is closed and idle; the task and its run stay. Can be repeated."""
    return await service.clean(resources, caller, task_id, body or TaskClean())


@restore_router.post("/{task_id}/rehydrate", status_code=204)
async def rehydrate_task(
    task_id: str, body: SnapshotRestore, resources: ResourcesDep, caller: Caller
) -> None:
    """Put an export back into a task that was cleaned, whole or in pieces. Can be repeated."""
    await service.restore(resources, caller, task_id, body)
