"""Tasks of a whole page of runs in one statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import JsonObject, rows
from agentex.ids import UUID7_SQL
from agentex.tasks.models import TaskRead


@dataclass(frozen=True)
class NewTask:
    """A task to make unless its name exists in the account."""

    id: UUID
    account_id: str
    owner: str
    agent_id: UUID
    name: str
    params: JsonObject | None
    task_metadata: JsonObject | None


@dataclass(frozen=True)
class OwnedTask:
    """A task, and whose it is, which the wire does not say."""

    task: TaskRead
    owner: str


async def ensure_tasks(session: AsyncSession, tasks: Sequence[NewTask]) -> dict[str, OwnedTask]:
    """Make the tasks that lack, leave those that are there; returns all of them by name."""
    await rows(session, _INSERT_SQL, tasks=json.dumps([_as_json(task) for task in tasks]))
    found = await rows(
        session,
        """
        SELECT t.id, t.name, t.owner, t.status, t.status_reason, t.created_at, t.updated_at, t.cleaned_at,
            t.params::text AS params, t.task_metadata::text AS task_metadata
        FROM tasks t JOIN unnest(CAST(:accounts AS text[]), CAST(:names AS text[])) AS n (account_id, name)
            ON t.account_id = n.account_id AND t.name = n.name
        """,
        accounts=[task.account_id for task in tasks],
        names=[task.name for task in tasks],
    )
    return {
        row["name"]: OwnedTask(
            TaskRead.model_validate(
                {
                    **row,
                    "params": json.loads(row["params"]) if row["params"] else None,
                    "task_metadata": json.loads(row["task_metadata"]) if row["task_metadata"] else None,
                }
            ),
            row["owner"],
        )
        for row in found
    }


# With each task its agent's tracker (trackers/models.py).
_INSERT_SQL = f"""
    WITH made AS (
    INSERT INTO tasks (id, account_id, owner, agent_id, name, status, params, task_metadata, created_at,
        updated_at)
    SELECT id, account_id, owner, agent_id, name, 'RUNNING', params, task_metadata,
        clock_timestamp(), clock_timestamp()
    FROM jsonb_to_recordset(CAST(:tasks AS jsonb)) AS t (
        id uuid, account_id text, owner text, agent_id uuid, name text, params jsonb, task_metadata jsonb)
    ORDER BY account_id, name
    ON CONFLICT (account_id, name) DO NOTHING
    RETURNING id, account_id, agent_id, created_at)
    INSERT INTO trackers (id, account_id, agent_id, task_id, created_at, updated_at)
    SELECT {UUID7_SQL}, account_id, agent_id, id, created_at, created_at FROM made
"""


def _as_json(task: NewTask) -> JsonObject:
    row: JsonObject = {
        "id": str(task.id),
        "account_id": task.account_id,
        "owner": task.owner,
        "agent_id": str(task.agent_id),
        "name": task.name,
    }
    # A key that is absent is SQL NULL; a JSON null would be the JSON literal.
    if task.params is not None:
        row["params"] = task.params
    if task.task_metadata is not None:
        row["task_metadata"] = task.task_metadata
    return row
