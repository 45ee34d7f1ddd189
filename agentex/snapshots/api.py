"""/tasks/{id}/export, clean, rehydrate: a task's content is taken out, removed, and put back."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from agentex.deps import Caller, ResourcesDep
from agentex.snapshots import service
from agentex.snapshots.export import export
from agentex.snapshots.models import Snapshot, SnapshotRestore, TaskClean, TaskCleaned
from agentex.tasks import service as tasks

router = APIRouter(prefix="/tasks", tags=["snapshots"])
# Takes larger bodies than all else.
restore_router = APIRouter(prefix="/tasks", tags=["snapshots"])


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
