"""What a change does to a schedule: keys applied, the whole validated, instants settled, clocks moved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import Agent
from agentex.auth.principal import Principal
from agentex.errors import BadRequest, InvalidInput
from agentex.ids import fire_id
from agentex.runs.models import RunReason
from agentex.schedules import revisions
from agentex.schedules.models import Schedule, ScheduleCreate, ScheduleUpdate
from agentex.schedules.reads import cadence_key_of, cadence_of, next_instants
from agentex.schedules.settle import ACTIVE_AFTER, NewWindow, attach, detach, settle

# A PATCH that sends null for these leaves them as they are (wire.md §3).
NULL_IGNORED = frozenset({"name", "timezone", "paused", "initial_input", "policies"})


# A skip that is past is kept until its instant has certainly been opened, outages included.
KEEP_SKIPS = timedelta(days=2)


@dataclass
class Change:
    """A schedule under a change: its row is locked, and `now` is the database's clock."""

    session: AsyncSession
    schedule: Schedule
    principal: Principal
    now: datetime

    def write(self, change: str, *, note: str | None = None) -> None:
        """Write the row as its next version, with the revision; skips long past are dropped."""
        schedule = self.schedule
        schedule.version += 1
        schedule.updated_at = self.now
        schedule.skipped_action_times = [
            fire
            for fire in schedule.skipped_action_times
            if datetime.fromisoformat(fire) > self.now - KEEP_SKIPS
        ]
        self.session.add(schedule)
        revisions.append(self.session, self.principal, schedule, change, note=note)


@dataclass(frozen=True)
class Before:
    """What decides which instants a schedule owes, as it was before a change."""

    cadence_key: str
    start_at: datetime | None
    end_at: datetime | None
    paused: bool

    @classmethod
    def of(cls, schedule: Schedule) -> Before:
        """The schedule's as it stands."""
        return cls(cadence_key_of(schedule), schedule.start_at, schedule.end_at, schedule.paused)


def new_schedule(principal: Principal, agent: Agent, body: ScheduleCreate, now: datetime) -> Schedule:
    """The row of a new schedule; raises InvalidInput for a cadence or zone that is none."""
    values: dict[str, Any] = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name in type(body).model_fields
        for value in [getattr(body, name)]
    }
    schedule = Schedule(
        **values,
        account_id=agent.account_id,
        agent_id=agent.id,
        creator_principal=principal.model_dump(mode="json"),
        created_at=now,
        updated_at=now,
    )
    cadence_of(schedule)
    return schedule


def apply_keys(schedule: Schedule, body: ScheduleUpdate) -> bool:
    """Apply the keys that the body has and validate the whole; returns whether anything is different.

    BadRequest when a null leaves no cadence, InvalidInput for what would never fire.
    """
    before = schedule.model_dump()
    window_or_cadence = Before.of(schedule)
    for name in sorted(body.model_fields_set):
        value = getattr(body, name)
        if value is None and name in NULL_IGNORED:
            continue
        setattr(schedule, name, value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
    if schedule.paused != window_or_cadence.paused:
        # The note told of the state before.
        schedule.state_note = None
    if body.cron_expression is not None:
        schedule.interval_seconds = None
    if body.interval_seconds is not None:
        schedule.cron_expression = None
    if schedule.cron_expression is None and schedule.interval_seconds is None:
        raise BadRequest("a schedule needs a cadence: null for its only one needs the other one in its place")
    after = Before.of(schedule)
    if (after.cadence_key, after.start_at, after.end_at) != (
        window_or_cadence.cadence_key,
        window_or_cadence.start_at,
        window_or_cadence.end_at,
    ):
        require_instants(schedule, schedule.created_at)
    return schedule.model_dump() != before


def require_instants(schedule: Schedule, since: datetime) -> None:
    """Raise InvalidInput when the window is none, or has no instant of the cadence after `since`."""
    start, end = schedule.start_at, schedule.end_at
    if start is not None and end is not None and end <= start:
        raise InvalidInput("end_at", f"{end.isoformat()} is not after start_at {start.isoformat()}")
    if not next_instants(schedule, since, limit=1, skipped=True):
        window = f"from {max(start or since, since).isoformat()} to {end.isoformat() if end else 'the end'}"
        raise InvalidInput(
            "end_at" if end else "cron_expression",
            f"the cadence {cadence_of(schedule).key!r} never fires {window}; move end_at or the cadence",
        )


def require_coming(change: Change, instant: datetime) -> None:
    """Raise BadRequest unless the instant is one of the schedule's and still ahead."""
    schedule = change.schedule
    if instant <= change.now:
        raise BadRequest(
            f"scheduled_time: {instant.isoformat()} is past; only a coming instant can be skipped"
        )
    inside = (schedule.start_at is None or instant >= schedule.start_at) and (
        schedule.end_at is None or instant <= schedule.end_at
    )
    if not inside or not cadence_of(schedule).matches(instant):
        coming = next_instants(schedule, change.now, limit=1, skipped=True)
        hint = f"; the next one is {fire_id(coming[0])}" if coming else ""
        raise BadRequest(f"scheduled_time: {instant.isoformat()} is no instant of this schedule{hint}")


async def move(change: Change, before: Before) -> None:
    """Settle what the schedule no longer owes and attach it to what it owes now.

    Call it after the change is applied to the object and before anything is flushed: settle reads the row
    as it was.
    """
    session, schedule = change.session, change.schedule
    moved = cadence_key_of(schedule) != before.cadence_key
    window = NewWindow(schedule.start_at, schedule.end_at)
    window_moved = (before.start_at, before.end_at) != (window.start_at, window.end_at)
    with session.no_autoflush:
        if not before.paused and (moved or schedule.paused):
            reason = RunReason.PAUSED if schedule.paused else RunReason.DEFINITION_CHANGED
            change.now = await settle(session, [schedule.id], reason)
            await detach(session, [schedule.id])
        elif not before.paused and window_moved:
            change.now = await settle(session, [schedule.id], RunReason.DEFINITION_CHANGED, window=window)
        if not schedule.paused and (moved or window_moved or before.paused):
            # Without a gap to what was owed before: up to now it is settled, and what passes until the commit
            # is found by the look at new attachments.
            after = ACTIVE_AFTER if before.paused else timedelta(0)
            await attach(session, schedule.id, cadence_of(schedule), change.now, after=after)
