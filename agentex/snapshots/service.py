"""Removing a task's content, and putting it back from a snapshot.

Both hold the task, so that one waits for the other and for what is added to the task meanwhile. Both can be
repeated: a clean removes what has come since, a snapshot that is there already is left as it is.

What retention (runs/retention.py) makes of it: a clean does not touch updated_at, so a cleaned task goes when
it would have gone anyway; putting back does, so that what was put back today is not forgotten tomorrow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import RowMapping
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, require
from agentex.auth.principal import Principal
from agentex.database import JsonObject, rows
from agentex.errors import BadRequest, InvalidInput, NotFound
from agentex.resources import Resources
from agentex.snapshots.models import SnapshotRestore, TaskClean, TaskCleaned
from agentex.snapshots.parts import PARTS, Part
from agentex.tasks import service as tasks
from agentex.tasks.models import OPEN_STATUSES, Task


async def clean(resources: Resources, principal: Principal, task_id: str, asked: TaskClean) -> TaskCleaned:
    """Remove the content of a closed task; the task itself and its run stay.

    Raises BadRequest for a task that is open, whose run goes on, or that was used in the last idle_days.
    """
    task = await _allowed(resources, principal, task_id, Operation.DELETE)

    async def write() -> TaskCleaned:
        async with resources.db.begin() as session:
            held = await _hold(session, task)
            await _require_quiet(session, held, asked)
            deleted = {part.name: await _remove(session, part, task.id) for part in PARTS}
            cleaned_at = await _mark_cleaned(session, task.id)
        return TaskCleaned(
            task_id=task.id,
            cleaned_at=cleaned_at,
            messages_deleted=deleted.get("messages", 0),
            task_states_deleted=deleted.get("task_states", 0),
            events_deleted=deleted.get("events", 0),
            deleted=deleted,
        )

    return await resources.db.retry_deadlock(write)


async def restore(
    resources: Resources, principal: Principal, task_id: str, snapshot: SnapshotRestore
) -> None:
    """Put a snapshot, or a piece of one, back into a cleaned task.

    Raises InvalidInput for entries of another task or agent, BadRequest for ids that another task has, and
    for a task that is not cleaned, unless it has all of it.
    """
    task = await _allowed(resources, principal, task_id, Operation.UPDATE)
    entries = {part.name: _rows_of(part, task, snapshot) for part in PARTS}

    async def write() -> None:
        async with resources.db.begin() as session:
            held = await _hold(session, task)
            is_cleaned = held["cleaned_at"] is not None
            for part in PARTS:
                if is_cleaned:
                    await _insert(session, part, entries[part.name])
                await _require_there(session, part, task, entries[part.name], is_cleaned=is_cleaned)
            if is_cleaned and not snapshot.more:
                await rows(
                    session,
                    "UPDATE tasks SET cleaned_at = NULL, updated_at = clock_timestamp() WHERE id = :id",
                    id=task.id,
                )

    await resources.db.retry_deadlock(write)


async def _allowed(resources: Resources, principal: Principal, task_id: str, operation: Operation) -> Task:
    async with resources.db.read() as session:
        task = await tasks.get(session, resources.authz, principal, task_id)
        await require(resources.authz, session, principal, operation, tasks.task_ref(task))
        return task


async def _hold(session: AsyncSession, task: Task) -> RowMapping:
    """The task as it stands, held so that nobody adds to it until the transaction ends."""
    found = await rows(
        session,
        """
        SELECT id, status, cleaned_at FROM tasks
        WHERE id = :id AND account_id = :account_id AND status <> 'DELETED' FOR UPDATE
        """,
        id=task.id,
        account_id=task.account_id,
    )
    if not found:
        raise NotFound(f"task {str(task.id)!r} not found")
    return found[0]


async def _require_quiet(session: AsyncSession, task: RowMapping, asked: TaskClean) -> None:
    if task["status"] in OPEN_STATUSES:
        raise BadRequest(f"task {task['id']} is {task['status']}; only a task that is closed can be cleaned")
    found = await rows(
        session,
        """
        SELECT (SELECT id FROM runs WHERE task_id = t.id AND finished_at IS NULL LIMIT 1) AS run_id,
            greatest(t.updated_at, (
                SELECT created_at FROM messages m WHERE m.task_id = t.id
                ORDER BY created_at DESC, id DESC LIMIT 1
            )) >= clock_timestamp() - make_interval(days => :days) AS is_recent
        FROM tasks t WHERE t.id = :id
        """,
        id=task["id"],
        days=asked.idle_days,
    )
    if found[0]["run_id"] is not None:
        raise BadRequest(f"task {task['id']} cannot be cleaned: its run {found[0]['run_id']} has not ended")
    if found[0]["is_recent"] and not asked.force and task["cleaned_at"] is None:
        raise BadRequest(
            f"task {task['id']} was used in the last {asked.idle_days} days; give fewer idle_days, or force"
        )


async def _remove(session: AsyncSession, part: Part, task_id: UUID) -> int:
    """How many rows went, or were emptied."""
    if part.emptied:
        nulls = ", ".join(f"{column} = NULL" for column in part.emptied)
        full = " OR ".join(f"{column} IS NOT NULL" for column in part.emptied)
        statement = f"UPDATE {part.table} SET {nulls} WHERE task_id = :task_id AND ({full})"
    else:
        statement = f"DELETE FROM {part.table} WHERE task_id = :task_id"
    counted = await rows(
        session, f"WITH gone AS ({statement} RETURNING 1) SELECT count(*) AS n FROM gone", task_id=task_id
    )
    return counted[0]["n"]


async def _mark_cleaned(session: AsyncSession, task_id: UUID) -> datetime:
    marked = await rows(
        session,
        """
        UPDATE tasks SET cleaned_at = coalesce(cleaned_at, clock_timestamp()) WHERE id = :id
        RETURNING cleaned_at
        """,
        id=task_id,
    )
    return marked[0]["cleaned_at"]


def _rows_of(part: Part, task: Task, snapshot: SnapshotRestore) -> list[JsonObject]:
    """The part's entries as rows of this task; raises InvalidInput for what is another's, or comes twice."""
    given: Sequence[BaseModel] = getattr(snapshot, part.name)
    if snapshot.task_id != task.id:
        raise InvalidInput("task_id", f"is {snapshot.task_id}, not the task of the path, {task.id}")
    made = [{**entry.model_dump(mode="json"), "account_id": task.account_id} for entry in given]
    seen: set[tuple[object, ...]] = set()
    for index, row in enumerate(made):
        for field, of_task in (("task_id", task.id), ("thread_id", task.id), ("agent_id", task.agent_id)):
            if field in row and not _names(row[field], of_task):
                raise InvalidInput(
                    f"{part.name}.{index}.{field}", f"is {row[field]}, not this task's {of_task}"
                )
        key = tuple(row[column] for column in part.key)
        if key in seen:
            raise InvalidInput(f"{part.name}.{index}.{part.key[0]}", f"{key[0]} is there twice")
        seen.add(key)
    return made


def _names(value: object, id_: UUID) -> bool:
    """Whether it is that id, in any form: an agent may name its thread after the task without dashes."""
    try:
        return UUID(str(value)) == id_
    except ValueError:
        return False


async def _insert(session: AsyncSession, part: Part, entries: Sequence[JsonObject]) -> None:
    """Add the rows that lack, and fill those that were emptied, where they are this task's."""
    columns = ", ".join(part.columns)
    filled = ", ".join(f"{column} = excluded.{column}" for column in part.emptied)
    on_conflict = (
        f"""({", ".join(part.key)}) DO UPDATE SET {filled} WHERE {part.table}.task_id = excluded.task_id
            AND {part.table}.account_id = excluded.account_id"""
        if filled
        else "DO NOTHING"
    )
    try:
        await rows(
            session,
            f"""
            INSERT INTO {part.table} ({columns}) OVERRIDING SYSTEM VALUE
            SELECT {columns} FROM {_recordset(part)} ON CONFLICT {on_conflict}
            """,
            entries=json.dumps(entries),
        )
    except IntegrityError:
        raise BadRequest(f"{part.name}: an entry contradicts what the task has; put back an export") from None


async def _require_there(
    session: AsyncSession, part: Part, task: Task, entries: Sequence[JsonObject], *, is_cleaned: bool
) -> None:
    """Raise BadRequest unless the task has a row for each entry."""
    counted = await rows(
        session,
        f"""
        SELECT count(*) AS n FROM {part.table} t JOIN {_recordset(part)} e USING ({", ".join(part.key)})
        WHERE t.task_id = :task_id AND t.account_id = :account_id
        """,
        entries=json.dumps([{column: entry[column] for column in part.key} for entry in entries]),
        task_id=task.id,
        account_id=task.account_id,
    )
    missing = len(entries) - counted[0]["n"]
    if missing and is_cleaned:
        raise BadRequest(f"{part.name}: {missing} of {len(entries)} ids belong to something else")
    if missing:
        raise BadRequest(f"task {task.id} is not cleaned, and has not all of this snapshot; clean it first")


def _recordset(part: Part) -> str:
    return f"jsonb_populate_recordset(CAST(NULL AS {part.table}), CAST(:entries AS jsonb))"
