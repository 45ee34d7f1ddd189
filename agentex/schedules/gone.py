"""Schedules whose creator is gone: nobody is there for whom they could run, so they are paused."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.principal import Principal, system_principal
from agentex.resources import GoneCreator, Resources
from agentex.runs.models import RunReason
from agentex.schedules import revisions
from agentex.schedules.models import Schedule
from agentex.schedules.settle import detach, settle


async def pause_for_gone_creators(resources: Resources, gone: Sequence[GoneCreator]) -> None:
    """The runs' hook: pause these, in one transaction, unless they have another creator by now.

    Schedules alone are locked, in the order of their ids, as whoever deletes an agent does.
    """
    creators = {item.schedule_id: item.principal for item in gone}

    async def write() -> None:
        async with resources.db.begin() as session:
            await _pause(session, creators)

    await resources.db.retry_deadlock(write)


async def _pause(session: AsyncSession, creators: dict[UUID, Principal]) -> None:
    statement = (
        select(Schedule)
        .where(col(Schedule.id).in_(creators), col(Schedule.deleted_at).is_(None), ~col(Schedule.paused))
        .order_by(col(Schedule.id))
        .with_for_update(key_share=True)
    )
    found = [
        schedule
        for schedule in (await session.exec(statement)).all()
        if Principal.model_validate(schedule.creator_principal) == creators[schedule.id]
    ]
    ids = [schedule.id for schedule in found]
    now = await settle(session, ids, RunReason.DENIED)
    await detach(session, ids)
    for schedule in found:
        schedule.paused = True
        creator = creators[schedule.id].creator
        schedule.state_note = f"paused: its creator {creator} is no member of the account any more"
        schedule.version += 1
        schedule.updated_at = now
        session.add(schedule)
        by = system_principal(schedule.account_id)
        revisions.append(session, by, schedule, "pause", note=schedule.state_note)
