"""Revisions: what a schedule was at each version, and what a run gets of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.principal import Principal
from agentex.database import JsonObject, rows
from agentex.resources import Definition, DefinitionRef
from agentex.schedules.models import FinishesOn, Policies, Schedule, ScheduleRevision

# What a revision keeps: all that a caller may change. Times as ISO 8601, like on the wire.
DEFINITION_FIELDS = frozenset(
    {
        "name",
        "description",
        "cron_expression",
        "interval_seconds",
        "timezone",
        "start_at",
        "end_at",
        "paused",
        "task_params",
        "task_metadata",
        "initial_input",
        "skipped_action_times",
        "policies",
    }
)


def append(
    session: AsyncSession, principal: Principal, schedule: Schedule, change: str, *, note: str | None = None
) -> None:
    """Add the revision of a schedule's version that is being written, in the same transaction."""
    session.add(
        ScheduleRevision(
            schedule_id=schedule.id,
            version=schedule.version,
            change=change,
            note=note,
            changed_by=principal.model_dump(mode="json"),
            definition=_definition(schedule),
            created_at=schedule.updated_at,
        )
    )


async def has(session: AsyncSession, schedule_id: UUID, change: str, note: str) -> bool:
    """Whether the schedule was ever changed in this way, with this note."""
    statement = select(ScheduleRevision.version).where(
        col(ScheduleRevision.schedule_id) == schedule_id,
        col(ScheduleRevision.change) == change,
        col(ScheduleRevision.note) == note,
    )
    return (await session.exec(statement.limit(1))).first() is not None


async def definitions(
    session: AsyncSession, references: Sequence[DefinitionRef]
) -> dict[DefinitionRef, Definition]:
    """The definitions that runs were opened with, for a whole page at once."""
    found = await rows(
        session,
        """
        SELECT v.schedule_id, v.version, v.definition::text AS definition, s.deleted_at IS NOT NULL AS deleted
        FROM unnest(CAST(:ids AS uuid[]), CAST(:versions AS int[])) AS w (schedule_id, version)
        JOIN schedule_revisions v ON v.schedule_id = w.schedule_id AND v.version = w.version
        JOIN agent_run_schedules s ON s.id = v.schedule_id
        """,
        ids=[reference.schedule_id for reference in references],
        versions=[reference.version for reference in references],
    )
    return {
        DefinitionRef(row["schedule_id"], row["version"]): _for_run(
            json.loads(row["definition"]), deleted=row["deleted"]
        )
        for row in found
    }


def _definition(schedule: Schedule) -> JsonObject:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name in sorted(DEFINITION_FIELDS)
        for value in [getattr(schedule, name)]
    }


def _for_run(definition: JsonObject, *, deleted: bool) -> Definition:
    policies = Policies.model_validate(definition["policies"])
    return Definition(
        name=definition["name"],
        input=definition["initial_input"],
        task_params=definition["task_params"],
        task_metadata=definition["task_metadata"],
        retry_window_seconds=policies.retries.window_seconds,
        resend_unknown=policies.retries.resend_unknown,
        finishes_on_task=policies.finishes_on is FinishesOn.TASK,
        deleted=deleted,
    )
