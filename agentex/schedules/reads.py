"""A schedule as callers see it: its row, its totals, its agent, its next instants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast
from uuid import UUID

from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import Bundle
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import AcpType, Agent, AgentStatus
from agentex.auth.principal import Principal
from agentex.cadence.base import Cadence
from agentex.cadence.registry import parse
from agentex.clocks.service import CADENCE_ERRORS
from agentex.ids import fire_id
from agentex.pagination import after_cursor, encode_cursor
from agentex.schedules.models import (
    AFTER_NAME_CHARACTERS,
    InitialInput,
    Policies,
    Schedule,
    ScheduleClock,
    ScheduleList,
    ScheduleRead,
    ScheduleState,
    ScheduleTotals,
)

NEXT_TIMES = 10
# Some 10 MB; a page of a list shows at most 1,000 of them.
KNOWN_CADENCES = 10_000


@dataclass(frozen=True)
class Live:
    """Whether Temporal answers, where the caller asked for what is to come."""

    available: bool | None


@dataclass(frozen=True)
class ScheduleFilter:
    """Which of an agent's schedules a list has; None does not filter. updated_after is inclusive."""

    updated_after: datetime | None = None
    state: ScheduleState | None = None
    name_prefix: str | None = None


def cadence_of(schedule: Schedule) -> Cadence:
    """The schedule's cadence."""
    return parse(
        cron_expression=schedule.cron_expression,
        interval_seconds=schedule.interval_seconds,
        timezone=schedule.timezone,
    )


def cadence_key_of(schedule: Schedule) -> str:
    """The cadence's key; for one that cannot be read any more, what it was written as, which no clock has."""
    try:
        return cadence_of(schedule).key
    except CADENCE_ERRORS:
        return f"unreadable {schedule.cron_expression} {schedule.interval_seconds} {schedule.timezone}"


def next_instants(
    schedule: Schedule, after: datetime, *, limit: int = NEXT_TIMES, skipped: bool = False
) -> list[datetime]:
    """The next instants inside the window that were not skipped (or, if asked, those too)."""
    start = max(after, schedule.start_at) if schedule.start_at else after
    end = schedule.end_at or datetime.max.replace(tzinfo=UTC)
    out: frozenset[str] = frozenset() if skipped else frozenset(schedule.skipped_action_times)
    found = _coming_of(cadence_of(schedule), start, limit + len(out) + 1)
    return [one for one in found if after < one <= end and fire_id(one) not in out][:limit]


@dataclass(frozen=True)
class _Known:
    """A cadence's instants from `since` on: until the first of them has passed, these are the next."""

    since: datetime
    instants: list[datetime]


def _coming_of(cadence: Cadence, start: datetime, count: int) -> list[datetime]:
    """The cadence's next instants from `start` on, remembered: ten of a yearly one take 0.25 ms to find."""
    known = _known.get(cadence.key)
    if known is None or len(known.instants) < count or not known.since <= start <= known.instants[0]:
        never = datetime.max.replace(tzinfo=UTC)
        instants = cadence.between(start, never, limit=max(count, NEXT_TIMES + 1))
        if len(_known) >= KNOWN_CADENCES:
            _known.clear()
        _known[cadence.key] = known = _Known(start, instants)
    return known.instants


_known: dict[str, _Known] = {}


async def read_one(session: AsyncSession, schedule_id: UUID, now: datetime, live: Live) -> ScheduleRead:
    """One schedule as it stands."""
    return (await _read(session, [schedule_id], now, live))[0]


@dataclass(frozen=True)
class PagePart:
    """Which part of a list: so many behind a cursor, of those that the caller may see."""

    limit: int
    cursor: str | None
    seen: ColumnElement[bool]


async def read_page(
    session: AsyncSession, agent_id: UUID, wanted: ScheduleFilter, part: PagePart, live: Live | None
) -> ScheduleList:
    """An agent's schedules, newest first, by keyset; the total counts all that the filter lets through."""
    mine = and_(
        col(Schedule.agent_id) == agent_id, col(Schedule.deleted_at).is_(None), part.seen, *_passes(wanted)
    )
    statement = select(Schedule.id, Schedule.created_at).where(mine)
    if part.cursor is not None:
        statement = statement.where(after_cursor(part.cursor, col(Schedule.created_at), col(Schedule.id)))
    order = (col(Schedule.created_at).desc(), col(Schedule.id).desc())
    found = (await session.exec(statement.order_by(*order).limit(part.limit + 1))).all()
    page = found[: part.limit]
    total = (await session.exec(select(func.count()).select_from(Schedule).where(mine))).one()
    return ScheduleList(
        run_schedules=await _read(session, [row[0] for row in page], datetime.now(UTC), live),
        total=total,
        next_cursor=encode_cursor(page[-1][1], page[-1][0]) if len(found) > part.limit else None,
    )


def _passes(wanted: ScheduleFilter) -> list[ColumnElement[bool]]:
    passes: list[ColumnElement[bool]] = []
    if wanted.updated_after is not None:
        passes.append(col(Schedule.updated_at) >= wanted.updated_after)
    if wanted.state is not None:
        passes.append(col(Schedule.paused) == (wanted.state is ScheduleState.PAUSED))
    if wanted.name_prefix is not None:
        # Bounds rather than LIKE, which is one only where the planner knows the pattern.
        passes.append(col(Schedule.name) >= wanted.name_prefix)
        passes.append(col(Schedule.name) < wanted.name_prefix + AFTER_NAME_CHARACTERS)
    return passes


@dataclass(frozen=True)
class _AgentNow:
    """What a schedule tells of its agent."""

    acp_type: AcpType
    status: AgentStatus
    status_reason: str | None


# Three columns of the row: an agent's card may be large, and a page has a thousand schedules.
_AGENT = Bundle[Any]("agent", col(Agent.acp_type), col(Agent.status), col(Agent.status_reason))


async def _read(
    session: AsyncSession, ids: Sequence[UUID], now: datetime, live: Live | None
) -> list[ScheduleRead]:
    statement = (
        select(Schedule, _AGENT, ScheduleTotals, ScheduleClock.active_from)
        .join(Agent, col(Agent.id) == col(Schedule.agent_id))
        .outerjoin(ScheduleTotals, col(ScheduleTotals.schedule_id) == col(Schedule.id))
        .outerjoin(ScheduleClock, col(ScheduleClock.schedule_id) == col(Schedule.id))
        .where(col(Schedule.id).in_(ids))
        .order_by(col(Schedule.created_at).desc(), col(Schedule.id).desc())
        # What the same transaction has written by statement is read anew.
        .execution_options(populate_existing=True)
    )
    reads: list[ScheduleRead] = []
    for schedule, agent, totals, active_from in (await session.exec(statement)).all():
        # An outer join: pyright takes both for always there.
        found = cast("ScheduleTotals | None", totals)
        after = max(now, cast("datetime | None", active_from) or now)
        reads.append(_to_read(schedule, _AgentNow(*agent), found, _Ahead(after, live)))
    return reads


@dataclass(frozen=True)
class _Ahead:
    after: datetime
    live: Live | None


def _coming(schedule: Schedule, after: datetime) -> list[datetime]:
    """The next instants; none that could be told of where the cadence cannot be read (its clock says so)."""
    try:
        return next_instants(schedule, after)
    except CADENCE_ERRORS:
        return []


def _to_read(
    schedule: Schedule, agent: _AgentNow, totals: ScheduleTotals | None, ahead: _Ahead
) -> ScheduleRead:
    method: Literal["event/send", "message/send"] = (
        "message/send" if agent.acp_type is AcpType.SYNC else "event/send"
    )
    shown = ahead.live is not None and not schedule.paused
    skipped = [datetime.fromisoformat(instant) for instant in schedule.skipped_action_times]
    return ScheduleRead(
        **schedule.model_dump(
            exclude={"initial_input", "policies", "creator_principal", "skipped_action_times"}
        ),
        initial_input=InitialInput.model_validate(schedule.initial_input),
        initial_input_method=method,
        creator_principal=Principal.model_validate(schedule.creator_principal),
        policies=Policies.model_validate(schedule.policies),
        state=ScheduleState.PAUSED if schedule.paused else ScheduleState.ACTIVE,
        next_action_times=_coming(schedule, ahead.after) if shown else [],
        live_data_available=ahead.live.available if ahead.live else None,
        skipped_action_times=[instant for instant in skipped if instant > ahead.after],
        last_action_time=totals.last_due_at if totals else None,
        num_actions_taken=totals.opened if totals else 0,
        agent_status=agent.status,
        agent_status_reason=agent.status_reason,
    )
