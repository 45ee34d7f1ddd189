"""Schedules: create, change, pause, resume, skip, trigger, delete.

Each write is one transaction: lock the row, apply the keys that were given, validate the whole, settle what
was owed, move the clocks, write the row and its revision. Temporal is told after the answer, if at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.agents import service as agents
from agentex.agents.models import Deleted
from agentex.auth.authorize import (
    Operation,
    ResourceRef,
    ResourceType,
    hidden_as,
    require,
    require_disposal,
    type_ref,
)
from agentex.auth.lists import creator_of, seen_by
from agentex.auth.owners import new_owner
from agentex.auth.principal import Principal
from agentex.cadence.interval import IntervalCadence
from agentex.clocks.service import OwnClock
from agentex.clocks.temporal import ensure_quietly
from agentex.database import clock_now, violates
from agentex.errors import AlreadyExists, BadRequest, NotFound, PreconditionFailed
from agentex.idempotency import Repeat, find_answer, remember
from agentex.ids import fire_id, key_fire_id, new_id, parse_id, run_fire_id
from agentex.resources import Resources
from agentex.runs.models import RunReason
from agentex.runs.service import NewRun, insert_manual
from agentex.schedules import revisions
from agentex.schedules.change import (
    Before,
    Change,
    apply_keys,
    move,
    new_schedule,
    require_coming,
    require_instants,
)
from agentex.schedules.models import (
    FinishesOn,
    Policies,
    Schedule,
    ScheduleClock,
    ScheduleCreate,
    ScheduleList,
    ScheduleRead,
    ScheduleTriggered,
    ScheduleUpdate,
)
from agentex.schedules.reads import Live, PagePart, ScheduleFilter, cadence_of, read_one, read_page
from agentex.schedules.settle import attach, detach, settle

UNIQUE_NAME = "uq_agent_run_schedules_agent_id_name"


@dataclass(frozen=True)
class Target:
    """Which schedule a request names: by id, or by name."""

    agent_id: str
    schedule_id: str | None = None
    name: str | None = None


def live(resources: Resources) -> Live:
    """What is known of Temporal just now; no call is made for it."""
    return Live(resources.temporal.healthy)


async def create(
    resources: Resources, principal: Principal, agent_id: str, body: ScheduleCreate, repeat: Repeat
) -> ScheduleRead:
    """Make a schedule and, unless it is paused, attach it to its clock."""
    async with resources.db.read() as session:
        agent = await agents.get(session, resources.authz, principal, agent_id)
        # Making a schedule is gated on the agent (wire.md §4): it spends in the agent's name.
        await require(resources.authz, session, principal, Operation.UPDATE, agents.agent_ref(agent))

    async def write() -> tuple[ScheduleRead, OwnClock | None]:
        async with resources.db.begin() as session:
            agent = await agents.find(session, principal, agent_id, hold=True)
            answer = await find_answer(session, repeat)
            if answer is not None:
                return ScheduleRead.model_validate(answer), None
            now = await clock_now(session)
            schedule = new_schedule(principal, agent, body, now)
            require_instants(schedule, now)
            session.add(schedule)
            await _flush(session, schedule)
            revisions.append(session, principal, schedule, "create")
            await session.flush()
            clock_id = (
                None if schedule.paused else await attach(session, schedule.id, cadence_of(schedule), now)
            )
            created = await read_one(session, schedule.id, now, live(resources))
            await remember(session, repeat, created.model_dump(mode="json"))
            return created, _own_clock(schedule, clock_id)

    created, own = await resources.db.retry_deadlock(write)
    _ring(resources, own)
    return created


async def retrieve(
    session: AsyncSession, resources: Resources, principal: Principal, target: Target
) -> ScheduleRead:
    """One schedule."""
    schedule = await _find(session, resources, principal, target, Operation.READ)
    return await read_one(session, schedule.id, datetime.now(UTC), live(resources))


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    agent_id: str,
    wanted: ScheduleFilter,
    *,
    limit: int,
    cursor: str | None,
    include_live: bool,
) -> ScheduleList:
    """An agent's schedules; next_action_times only with include_live."""
    agent = await agents.get(session, resources.authz, principal, agent_id)
    seen = await resources.authz.visible(session, principal, ResourceType.SCHEDULE)
    of = "agent_run_schedules"
    owner = creator_of(f"{of}.creator_principal")
    part = PagePart(limit, cursor, seen_by(seen, id=f"{of}.id", owner=owner, agent_id=f"{of}.agent_id"))
    return await read_page(session, agent.id, wanted, part, live(resources) if include_live else None)


async def update(
    resources: Resources,
    principal: Principal,
    target: Target,
    body: ScheduleUpdate,
    *,
    version: int | None = None,
) -> ScheduleRead:
    """Apply the given keys. PreconditionFailed when `version` is given and not the current one."""

    async def apply(change: Change) -> None:
        schedule = change.schedule
        if version is not None and version != schedule.version:
            raise PreconditionFailed(
                f"the schedule is at version {schedule.version}, not {version}; read it again"
            )
        before = Before.of(schedule)
        if apply_keys(schedule, body):
            await move(change, before)
            change.write("update")
            await _flush(change.session, schedule)

    return await _change(resources, principal, target, Operation.UPDATE, apply)


async def pause(resources: Resources, principal: Principal, target: Target, note: str | None) -> ScheduleRead:
    """Stop owing runs from now on; what was owed until now has its rows. Idempotent."""
    return await _set_paused(resources, principal, target, paused=True, note=note)


async def resume(
    resources: Resources, principal: Principal, target: Target, note: str | None
) -> ScheduleRead:
    """Owe runs again, from the next instant on. Idempotent."""
    return await _set_paused(resources, principal, target, paused=False, note=note)


async def skip(resources: Resources, principal: Principal, target: Target, instant: datetime) -> ScheduleRead:
    """Take one coming instant out. Idempotent; BadRequest for what is past or no instant of the schedule."""

    async def apply(change: Change) -> None:
        require_coming(change, instant)
        if fire_id(instant) not in change.schedule.skipped_action_times:
            times = [*change.schedule.skipped_action_times, fire_id(instant)]
            change.schedule.skipped_action_times = sorted(times)
            change.write("skip", note=fire_id(instant))

    return await _change(resources, principal, target, Operation.UPDATE, apply)


async def unskip(
    resources: Resources, principal: Principal, target: Target, instant: datetime
) -> ScheduleRead:
    """Put a skipped instant back. A repeat is fine; BadRequest for what was never skipped."""

    async def apply(change: Change) -> None:
        fire = fire_id(instant)
        if fire in change.schedule.skipped_action_times:
            require_coming(change, instant)
            times = [other for other in change.schedule.skipped_action_times if other != fire]
            change.schedule.skipped_action_times = times
            change.write("unskip", note=fire)
        elif not await revisions.has(change.session, change.schedule.id, "unskip", fire):
            raise BadRequest(f"scheduled_time: {fire} is not skipped, so it cannot be put back")

    return await _change(resources, principal, target, Operation.UPDATE, apply)


async def transfer(resources: Resources, principal: Principal, target: Target, owner: str) -> ScheduleRead:
    """Give it to another member, for whom it runs from its next instant on. Idempotent.

    What has been opened runs for who it was opened for. The new owner may do what firing needs: agent.execute
    and task.create.
    """
    async with resources.db.read() as session:
        found = await _find(session, resources, principal, target, Operation.UPDATE)
        await require_disposal(resources.authz, session, principal, schedule_ref(found))
        agent = await agents.find(session, principal, found.agent_id)
        fires = [
            (Operation.EXECUTE, agents.agent_ref(agent)),
            (Operation.CREATE, type_ref(ResourceType.TASK, principal)),
        ]
        taker = await new_owner(session, resources.authz, principal, owner, fires)
    asked = found.creator_principal

    async def apply(change: Change) -> None:
        schedule = change.schedule
        before = Principal.model_validate(schedule.creator_principal)
        if before.creator == taker.creator:
            return
        if schedule.creator_principal != asked:
            raise PreconditionFailed(f"the schedule is {before.creator}'s by now; read it again")
        schedule.creator_principal = taker.model_dump(mode="json")
        change.write("transfer", note=f"from {before.creator} to {taker.creator}")

    by_id = Target(target.agent_id, schedule_id=str(found.id))
    return await _change(resources, principal, by_id, Operation.UPDATE, apply)


async def delete(resources: Resources, principal: Principal, target: Target) -> Deleted:
    """Delete softly: its runs stay, its name is free, what was owed until now has its rows."""

    async def apply(change: Change) -> None:
        change.now = await settle(change.session, [change.schedule.id], RunReason.SCHEDULE_DELETED)
        await detach(change.session, [change.schedule.id])
        change.schedule.deleted_at = change.now
        change.write("delete")

    deleted = await _change(resources, principal, target, Operation.DELETE, apply)
    return Deleted(id=deleted.id, message=f"Run schedule '{deleted.name}' was deleted")


async def trigger(
    resources: Resources, principal: Principal, target: Target, repeat: Repeat
) -> ScheduleTriggered:
    """Run once now, paused or not, under the creator's principal; the cadence stays as it is.

    The caller's idempotency key makes the run unique; a client's silent repeat finds the run it made.
    """
    found = await _allowed(resources, principal, target, Operation.EXECUTE)

    async def write() -> tuple[ScheduleTriggered, bool]:
        async with resources.db.begin() as session:
            schedule = await _again(session, principal, found)
            answer = await find_answer(session, repeat)
            new_run = None
            if answer is None:
                new_run = _manual_run(schedule, repeat)
                run_id = await insert_manual(session, new_run)
                await remember(session, repeat, {"run_id": str(run_id)})
            else:
                run_id = UUID(answer["run_id"])
            read = await read_one(session, schedule.id, datetime.now(UTC), live(resources))
        is_new = new_run is not None and new_run.id == run_id
        return ScheduleTriggered(**read.model_dump(), run_id=run_id), is_new

    triggered, is_new = await resources.db.retry_deadlock(write)
    if is_new and resources.hooks.run_opened is not None:
        resources.hooks.run_opened(triggered.run_id)
    return triggered


async def pause_for_deleted_agent(session: AsyncSession, principal: Principal, agent_id: UUID) -> None:
    """The agents' hook: a deleted agent's schedules are paused with a note, in the same transaction."""
    statement = (
        select(Schedule)
        .where(col(Schedule.agent_id) == agent_id, col(Schedule.deleted_at).is_(None))
        .order_by(col(Schedule.id))
        .with_for_update(key_share=True)
    )
    found = list((await session.exec(statement)).all())
    ids = [schedule.id for schedule in found]
    now = await settle(session, ids, RunReason.AGENT_DELETED)
    await detach(session, ids)
    for schedule in found:
        schedule.paused = True
        schedule.state_note = "its agent was deleted"
        schedule.version += 1
        schedule.updated_at = now
        session.add(schedule)
        revisions.append(session, principal, schedule, "pause", note=schedule.state_note)


def schedule_ref(schedule: Schedule) -> ResourceRef:
    """The schedule as a resource; its owner is its creator."""
    owner = Principal.model_validate(schedule.creator_principal).creator
    return ResourceRef(
        ResourceType.SCHEDULE,
        f"run-schedule::{schedule.agent_id}::{schedule.id}",
        schedule.account_id,
        owner,
    )


async def _change(
    resources: Resources,
    principal: Principal,
    target: Target,
    operation: Operation,
    apply: Callable[[Change], Awaitable[None]],
) -> ScheduleRead:
    """Lock the schedule, apply a change, read it back; once more when it lost a deadlock."""
    found = await _allowed(resources, principal, target, operation)

    async def write() -> tuple[ScheduleRead, OwnClock | None]:
        async with resources.db.begin() as session:
            schedule = await _again(session, principal, found, lock=True)
            change = Change(session, schedule, principal, await clock_now(session))
            await apply(change)
            await session.flush()
            clock_id = await _attached(session, schedule.id)
            read = await read_one(session, schedule.id, change.now, live(resources))
            return read, _own_clock(schedule, clock_id)

    changed, own = await resources.db.retry_deadlock(write)
    _ring(resources, own)
    return changed


async def _set_paused(
    resources: Resources, principal: Principal, target: Target, *, paused: bool, note: str | None
) -> ScheduleRead:
    async def apply(change: Change) -> None:
        schedule = change.schedule
        if schedule.paused == paused and (note is None or note == schedule.state_note):
            return
        before = Before.of(schedule)
        schedule.paused, schedule.state_note = paused, note
        await move(change, before)
        change.write("pause" if paused else "resume", note=note)

    return await _change(resources, principal, target, Operation.UPDATE, apply)


async def _allowed(
    resources: Resources, principal: Principal, target: Target, operation: Operation
) -> Schedule:
    """The schedule that the caller may do that to, asked before a transaction is open."""
    async with resources.db.read() as session:
        return await _find(session, resources, principal, target, operation)


async def _find(
    session: AsyncSession, resources: Resources, principal: Principal, target: Target, operation: Operation
) -> Schedule:
    """The schedule that the caller may do that to.

    NotFound also for another agent's schedule, and for one that the caller may not even read.
    """
    agent = await agents.get(session, resources.authz, principal, target.agent_id)
    statement = _of_agent(agent.id)
    if target.schedule_id is not None:
        statement = statement.where(col(Schedule.id) == parse_id(target.schedule_id, "run schedule"))
    else:
        statement = statement.where(col(Schedule.name) == target.name)
    found = (await session.exec(statement)).one_or_none()
    absent = NotFound(f"run schedule {target.schedule_id or target.name!r} of agent {agent.id} not found")
    if found is None:
        raise absent
    with hidden_as(absent):
        await require(resources.authz, session, principal, operation, schedule_ref(found))
    return found


async def _again(
    session: AsyncSession, principal: Principal, found: Schedule, *, lock: bool = False
) -> Schedule:
    """The schedule that was found and allowed, inside the write; it and its agent are held to be changed.

    NotFound when it or its agent was deleted in between.
    """
    await agents.find(session, principal, found.agent_id, hold=lock)
    statement = _of_agent(found.agent_id).where(col(Schedule.id) == found.id)
    if lock:
        # FOR NO KEY UPDATE: an attach of its own needs the key.
        statement = statement.with_for_update(key_share=True)
    schedule = (await session.exec(statement)).one_or_none()
    if schedule is None:
        raise NotFound(f"run schedule {found.name!r} of agent {found.agent_id} not found")
    return schedule


def _of_agent(agent_id: UUID) -> SelectOfScalar[Schedule]:
    return select(Schedule).where(col(Schedule.agent_id) == agent_id, col(Schedule.deleted_at).is_(None))


async def _flush(session: AsyncSession, schedule: Schedule) -> None:
    # Said before: a flush that fails leaves an object that was loaded without its attributes.
    taken = f"Run schedule '{schedule.name}' already exists for agent '{schedule.agent_id}'"
    try:
        await session.flush()
    except IntegrityError as error:
        if violates(error, UNIQUE_NAME):
            raise AlreadyExists(taken) from error
        raise


async def _attached(session: AsyncSession, schedule_id: UUID) -> UUID | None:
    statement = select(ScheduleClock.clock_id).where(col(ScheduleClock.schedule_id) == schedule_id)
    return (await session.exec(statement)).one_or_none()


def _own_clock(schedule: Schedule, clock_id: UUID | None) -> OwnClock | None:
    """The clock that Temporal must ring for this schedule alone; whole minutes share one that is there."""
    seconds = schedule.interval_seconds
    if clock_id is None or seconds is None or IntervalCadence.parse(seconds).whole_minutes:
        return None
    return OwnClock(clock_id, seconds)


def _ring(resources: Resources, own: OwnClock | None) -> None:
    if own is not None:
        resources.in_background(ensure_quietly(resources.temporal, resources.settings, own))


def _manual_run(schedule: Schedule, repeat: Repeat) -> NewRun:
    run_id = new_id()
    policies = Policies.model_validate(schedule.policies)
    return NewRun(
        id=run_id,
        account_id=schedule.account_id,
        agent_id=schedule.agent_id,
        schedule_id=schedule.id,
        schedule_version=schedule.version,
        fire_id=key_fire_id(repeat.key) if repeat.key else run_fire_id(run_id),
        principal=schedule.creator_principal,
        resend_unknown=policies.retries.resend_unknown,
        finishes_on_task=policies.finishes_on is FinishesOn.TASK,
    )
