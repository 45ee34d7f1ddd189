"""/checkpoints: where LangGraph agents keep their graphs (HttpCheckpointSaver of the agents' SDK)."""

from __future__ import annotations

from fastapi import APIRouter, Request

from agentex.checkpoints import service
from agentex.checkpoints.models import (
    CheckpointGet,
    CheckpointList,
    CheckpointPut,
    CheckpointRead,
    CheckpointRef,
    CheckpointTuple,
    ThreadRef,
    WritesPut,
)
from agentex.deps import Caller, ReadSession, ResourcesDep
from agentex.noted import Audited, note_of

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
# What these two take may be larger than other bodies.
put_router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])


@router.post("/get-tuple")
async def get_checkpoint_tuple(
    body: CheckpointGet, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> CheckpointTuple | None:
    """A checkpoint with its channels' values and pending writes, the latest unless its id is given."""
    return await service.get_tuple(session, resources, caller, body)


@put_router.post("/put")
async def put_checkpoint(
    body: CheckpointPut, resources: ResourcesDep, caller: Caller, request: Request
) -> CheckpointRef:
    """Keep a checkpoint and the channels' values that are new in it."""
    note_of(request).concerns(Audited.CHECKPOINT, body.thread_id)
    await service.put(resources, caller, body)
    return CheckpointRef(
        thread_id=body.thread_id, checkpoint_ns=body.checkpoint_ns, checkpoint_id=body.checkpoint_id
    )


@put_router.post("/put-writes", status_code=204)
async def put_checkpoint_writes(
    body: WritesPut, resources: ResourcesDep, caller: Caller, request: Request
) -> None:
    """Keep what tasks of the graph have written since a checkpoint."""
    note_of(request).concerns(Audited.CHECKPOINT, body.thread_id)
    await service.put_writes(resources, caller, body)


@router.post("/list")
async def list_checkpoints(
    body: CheckpointList, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> list[CheckpointRead]:
    """A thread's checkpoints, the latest first, without their blobs."""
    return await service.list_page(session, resources, caller, body)


@router.post("/delete-thread", status_code=204)
async def delete_checkpoint_thread(
    body: ThreadRef, resources: ResourcesDep, caller: Caller, request: Request
) -> None:
    """Forget all checkpoints of a thread."""
    note_of(request).concerns(Audited.CHECKPOINT, body.thread_id)
    await service.delete_thread(resources, caller, body.thread_id)
