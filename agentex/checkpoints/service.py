"""Checkpoints: with the semantics of LangGraph's Postgres saver, one statement each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, hidden_as
from agentex.auth.principal import Principal
from agentex.auth.tasks import require_owned, task_not_found, task_owner
from agentex.checkpoints.models import (
    CheckpointGet,
    CheckpointList,
    CheckpointPut,
    CheckpointRead,
    CheckpointTuple,
    WritePut,
    WritesPut,
)
from agentex.database import rows
from agentex.errors import NotFound
from agentex.resources import Resources

# A thread of a task is written only while the task is there, and holds it until the write is committed.
_HOLD_SQL = """
    task AS (SELECT id FROM tasks WHERE id = :task_id AND account_id = :account_id FOR KEY SHARE),
    thread AS (SELECT 1 WHERE CAST(:task_id AS uuid) IS NULL OR EXISTS (SELECT 1 FROM task))
"""
# In the order of their keys: two that put the same blobs wait for each other instead of deadlocking.
_PUT_SQL = f"""
    WITH {_HOLD_SQL},
    blobs AS (
        INSERT INTO checkpoint_blobs (account_id, thread_id, checkpoint_ns, channel, version, task_id, type,
            blob)
        SELECT :account_id, :thread_id, :checkpoint_ns, b.channel, b.version, CAST(:task_id AS uuid), b.type,
            b.blob
        FROM thread, unnest(CAST(:channels AS text[]), CAST(:versions AS text[]), CAST(:types AS text[]),
            CAST(:blobs AS bytea[])) AS b (channel, version, type, blob)
        ORDER BY b.channel, b.version
        ON CONFLICT (account_id, thread_id, checkpoint_ns, channel, version) DO NOTHING)
    INSERT INTO checkpoints (account_id, thread_id, checkpoint_ns, checkpoint_id, task_id,
        parent_checkpoint_id, checkpoint, checkpoint_metadata, created_at)
    SELECT :account_id, :thread_id, :checkpoint_ns, :checkpoint_id, CAST(:task_id AS uuid),
        :parent_checkpoint_id, CAST(:checkpoint AS jsonb), CAST(:metadata AS jsonb), clock_timestamp()
    FROM thread
    ON CONFLICT (account_id, thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        checkpoint = excluded.checkpoint, checkpoint_metadata = excluded.checkpoint_metadata
    RETURNING checkpoint_id
"""
_WRITES_SQL = f"""
    WITH {_HOLD_SQL},
    written AS (
        INSERT INTO checkpoint_writes (account_id, thread_id, checkpoint_ns, checkpoint_id, graph_task_id,
            idx, task_id, task_path, channel, type, blob)
        SELECT :account_id, :thread_id, :checkpoint_ns, :checkpoint_id, w.graph_task_id, w.idx,
            CAST(:task_id AS uuid), w.task_path, w.channel, w.type, w.blob
        FROM thread, unnest(CAST(:graph_task_ids AS text[]), CAST(:indexes AS int[]),
            CAST(:task_paths AS text[]), CAST(:channels AS text[]), CAST(:types AS text[]),
            CAST(:blobs AS bytea[])) AS w (graph_task_id, idx, task_path, channel, type, blob)
        ORDER BY w.graph_task_id, w.idx
        ON CONFLICT (account_id, thread_id, checkpoint_ns, checkpoint_id, graph_task_id, idx)
            {{on_conflict}})
    SELECT 1 FROM thread
"""
_KEEP_WRITES_SQL = _WRITES_SQL.format(on_conflict="DO NOTHING")
_REPLACE_WRITES_SQL = _WRITES_SQL.format(
    on_conflict="DO UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob"
)
_COLUMNS = """c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id,
    c.checkpoint::text AS checkpoint, c.checkpoint_metadata::text AS metadata"""
# encode() breaks its lines.
_BASE64 = "translate(encode({}.blob, 'base64'), E'\\n', '')"
GET_SQL = f"""
    SELECT {_COLUMNS},
        coalesce((
            SELECT json_agg(json_build_object('channel', b.channel, 'version', b.version, 'type', b.type,
                'blob', {_BASE64.format("b")}) ORDER BY b.channel)
            FROM jsonb_each_text(CASE WHEN jsonb_typeof(c.checkpoint -> 'channel_versions') = 'object'
                THEN c.checkpoint -> 'channel_versions' END) AS named (channel, version)
            JOIN checkpoint_blobs b ON b.account_id = c.account_id AND b.thread_id = c.thread_id
                AND b.checkpoint_ns = c.checkpoint_ns AND b.channel = named.channel
                AND b.version = named.version)::text, '[]') AS blobs,
        coalesce((
            SELECT json_agg(json_build_object('task_id', w.graph_task_id, 'idx', w.idx, 'channel', w.channel,
                'type', w.type, 'blob', {_BASE64.format("w")}) ORDER BY w.graph_task_id, w.idx)
            FROM checkpoint_writes w WHERE w.account_id = c.account_id AND w.thread_id = c.thread_id
                AND w.checkpoint_ns = c.checkpoint_ns
                AND w.checkpoint_id = c.checkpoint_id)::text, '[]') AS pending_writes
    FROM checkpoints c
    WHERE c.account_id = :account_id AND c.thread_id = :thread_id AND c.checkpoint_ns = :checkpoint_ns
        AND (CAST(:checkpoint_id AS text) IS NULL OR c.checkpoint_id = :checkpoint_id)
    ORDER BY c.checkpoint_id DESC LIMIT 1
"""
_DELETE_SQL = """
    WITH writes AS (
        DELETE FROM checkpoint_writes WHERE account_id = :account_id AND thread_id = :thread_id),
    blobs AS (
        DELETE FROM checkpoint_blobs WHERE account_id = :account_id AND thread_id = :thread_id)
    DELETE FROM checkpoints WHERE account_id = :account_id AND thread_id = :thread_id
"""


@dataclass(frozen=True)
class Thread:
    """A thread of the caller's account, and the task that it is, if it is one."""

    account_id: str
    thread_id: str
    task_id: UUID | None


async def get_tuple(
    session: AsyncSession, resources: Resources, principal: Principal, body: CheckpointGet
) -> CheckpointTuple | None:
    """A checkpoint, the latest of its namespace unless its id is given; None where there is none."""
    thread = await _allowed(session, resources, principal, Operation.READ, body.thread_id)
    found = await rows(
        session,
        GET_SQL,
        account_id=thread.account_id,
        thread_id=thread.thread_id,
        checkpoint_ns=body.checkpoint_ns,
        checkpoint_id=body.checkpoint_id or None,
    )
    if not found:
        return None
    more = {key: json.loads(found[0][key]) for key in ("blobs", "pending_writes")}
    return CheckpointTuple.model_validate({**found[0], **_documents(found[0]), **more})


async def list_page(
    session: AsyncSession, resources: Resources, principal: Principal, body: CheckpointList
) -> list[CheckpointRead]:
    """A thread's checkpoints, the latest first."""
    thread = await _allowed(session, resources, principal, Operation.READ, body.thread_id)
    wanted: dict[str, object] = {
        "c.checkpoint_ns = :checkpoint_ns": body.checkpoint_ns,
        "c.checkpoint_id < :before": body.before_checkpoint_id or None,
        "c.checkpoint_metadata @> CAST(:filter AS jsonb)": (
            json.dumps(body.filter_metadata) if body.filter_metadata else None
        ),
    }
    names = ("checkpoint_ns", "before", "filter")
    conditions = [sql for sql, value in wanted.items() if value is not None]
    given = {name: value for name, value in zip(names, wanted.values(), strict=True) if value is not None}
    found = await rows(
        session,
        f"""
        SELECT {_COLUMNS} FROM checkpoints c
        WHERE {" AND ".join(["c.account_id = :account_id", "c.thread_id = :thread_id", *conditions])}
        ORDER BY c.checkpoint_id DESC, c.checkpoint_ns LIMIT :limit
        """,
        account_id=thread.account_id,
        thread_id=thread.thread_id,
        limit=body.limit,
        **given,
    )
    return [CheckpointRead.model_validate({**row, **_documents(row)}) for row in found]


async def put(resources: Resources, principal: Principal, body: CheckpointPut) -> None:
    """Keep a checkpoint and its new blobs; put again it is replaced, while a blob stays what it was."""
    parameters: dict[str, object] = {
        "checkpoint_ns": body.checkpoint_ns,
        "checkpoint_id": body.checkpoint_id,
        "parent_checkpoint_id": body.parent_checkpoint_id or None,
        "checkpoint": json.dumps(body.checkpoint),
        "metadata": json.dumps(body.metadata),
        "channels": [blob.channel for blob in body.blobs],
        "versions": [blob.version for blob in body.blobs],
        "types": [blob.type for blob in body.blobs],
        "blobs": [blob.blob for blob in body.blobs],
    }
    await _write(resources, principal, body.thread_id, _PUT_SQL, parameters)


async def put_writes(resources: Resources, principal: Principal, body: WritesPut) -> None:
    """Keep pending writes; one whose place is taken is left out, or with upsert replaces what is there."""
    writes = _once(body.writes, last=body.upsert)
    parameters: dict[str, object] = {
        "checkpoint_ns": body.checkpoint_ns,
        "checkpoint_id": body.checkpoint_id,
        "graph_task_ids": [write.task_id for write in writes],
        "indexes": [write.idx for write in writes],
        "task_paths": [write.task_path for write in writes],
        "channels": [write.channel for write in writes],
        "types": [write.type for write in writes],
        "blobs": [write.blob for write in writes],
    }
    sql = _REPLACE_WRITES_SQL if body.upsert else _KEEP_WRITES_SQL
    await _write(resources, principal, body.thread_id, sql, parameters)


async def delete_thread(resources: Resources, principal: Principal, thread_id: str) -> None:
    """Forget all of a thread; of one that is not there there is nothing to forget."""
    async with resources.db.read() as session:
        thread = await _allowed(session, resources, principal, Operation.UPDATE, thread_id)

    async def delete() -> None:
        async with resources.db.single() as session:
            await rows(session, _DELETE_SQL, account_id=thread.account_id, thread_id=thread.thread_id)

    await resources.db.retry_deadlock(delete)


async def _write(
    resources: Resources, principal: Principal, thread_id: str, sql: str, parameters: dict[str, object]
) -> None:
    async with resources.db.read() as session:
        thread = await _allowed(session, resources, principal, Operation.UPDATE, thread_id)

    async def write() -> None:
        async with resources.db.single() as session:
            done = await rows(
                session,
                sql,
                account_id=thread.account_id,
                thread_id=thread.thread_id,
                task_id=thread.task_id,
                **parameters,
            )
        if not done:
            raise NotFound(f"task {thread_id!r} not found")

    # Against delete_thread, which locks the same rows in another order.
    await resources.db.retry_deadlock(write)


async def _allowed(
    session: AsyncSession, resources: Resources, principal: Principal, operation: Operation, thread_id: str
) -> Thread:
    """The thread, once the caller may do that to its task, or to what has none in its account."""
    task_id = _as_task_id(thread_id)
    owner = None if task_id is None else await task_owner(session, principal, task_id)
    absent = NotFound(f"task {thread_id!r} not found")
    if owner is None:
        if task_id is not None:
            await _refuse_deleted(session, principal, task_id)
        task_id = None
        if principal.agent_name is not None:
            # Nobody owns it, so that one agent would write into another's memory: an agent has its tasks'.
            raise absent
    with hidden_as(absent):
        if owner is None and operation is not Operation.READ:
            # Who may not read any is told the same of a thread that is somebody's hidden task.
            await require_owned(session, resources.authz, principal, Operation.READ, (None, None))
        await require_owned(session, resources.authz, principal, operation, (task_id, owner))
    return Thread(principal.account_id, thread_id, task_id)


async def _refuse_deleted(session: AsyncSession, principal: Principal, task_id: UUID) -> None:
    """Raises NotFound for a deleted task: its thread is not the account's, whose right asks for less."""
    found = await rows(
        session,
        "SELECT 1 FROM tasks WHERE id = :task_id AND account_id = :account_id",
        task_id=task_id,
        account_id=principal.account_id,
    )
    if found:
        raise task_not_found(task_id)


def _as_task_id(thread_id: str) -> UUID | None:
    try:
        return UUID(thread_id)
    except ValueError:
        return None


def _once(writes: Sequence[WritePut], *, last: bool) -> list[WritePut]:
    """One write for each place: a statement cannot replace a row that it has made itself."""
    kept: dict[tuple[str, int], WritePut] = {}
    for write in writes:
        if last or (write.task_id, write.idx) not in kept:
            kept[write.task_id, write.idx] = write
    return list(kept.values())


def _documents(row: RowMapping) -> dict[str, object]:
    return {key: json.loads(row[key]) for key in ("checkpoint", "metadata")}
