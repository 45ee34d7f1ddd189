"""A deploy under load: each process is ended and replaced in turn, and no row or request tells of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.acp_replies import Reply
from tests.support.fault_agent import FaultAgent
from tests.support.fault_ledger import every, instants
from tests.support.fault_rolling import TwoApis, end, repeat
from tests.support.fault_stack import LedgerRow, Stack, WorkerProcess

EVERY_SECONDS = 2
DELIVERED = 8
ANSWERED = 4
# Who makes requests side by side, beside the one who pauses and resumes.
CALLERS = 2
# Far more than one open answer of a second needs, on a machine that is busy.
DRAIN_SECONDS = 40
# Beyond the test's end: every run is on time, and so must be sent, however slow the machine is.
LATE_AFTER_SECONDS = 600
ACTIVE_AFTER = timedelta(seconds=1)
WELL = {("delivered", None), ("succeeded", None)}
PAUSED = ("skipped", "paused")


@dataclass
class Active:
    """From when to when a schedule owed instants; `answered`: until when a tick may still have seen it."""

    active_from: datetime
    paused_at: datetime
    answered: datetime


@dataclass
class Load:
    """What was asked for and answered."""

    stack: Stack
    apis: TwoApis
    path: str
    # By name, as it was answered last.
    made: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])
    # The run that each key was answered with.
    runs: dict[str, str] = field(default_factory=dict[str, str])
    intervals: list[Active] = field(default_factory=list[Active])

    async def create(self, name: str, **body: object) -> dict[str, Any]:
        """A schedule of this agent's."""
        given = {"name": name, "initial_input": {"content": "Go"}, **body}
        self.made[name] = await self.apis.call("POST", self.path, given, key=f"create-{name}")
        return self.made[name]

    async def make_one_and_change_it(self, caller: int, count: int) -> None:
        """All that callers do to a schedule, of an instant a year: its runs are those it is triggered for."""
        name = f"made-{caller}-{count}"
        path = f"{self.path}/{(await self.create(name, cron_expression='0 0 1 1 *'))['id']}"
        await self.apis.call("PATCH", path, {"description": f"of caller {caller}"})
        await self.apis.call("POST", f"{path}/pause", {"note": "for a moment"})
        await self.apis.call("POST", f"{path}/resume", {})
        self.runs[name] = (await self.apis.call("POST", f"{path}/trigger", key=name))["run_id"]
        self.made[name] = await self.apis.call("PATCH", path, {"task_params": {"count": count}})

    async def pause_and_resume(self, schedule: dict[str, Any]) -> None:
        """One round in the life of a schedule: it is active until now, and again from a moment later."""
        path = f"{self.path}/{schedule['id']}"
        paused = await self.apis.call("POST", f"{path}/pause", {})
        answered = await self.stack.now()
        began = _moment(schedule) + ACTIVE_AFTER
        self.intervals.append(Active(began, _moment(paused), answered))
        schedule |= await self.apis.call("POST", f"{path}/resume", {})
        # It owes something in each round.
        await self.stack.until_instant(
            await self.stack.instant(ACTIVE_AFTER.total_seconds(), every=EVERY_SECONDS)
        )


@pytest.fixture
async def rolling(make_stack: Callable[..., Stack]) -> AsyncIterator[tuple[Stack, TwoApis]]:
    """Two APIs and two workers."""
    stack = make_stack(drain_seconds=DRAIN_SECONDS, late_after_seconds=LATE_AFTER_SECONDS)
    apis = TwoApis(stack)
    apis.start()
    stack.start_worker()
    stack.start_worker()
    yield stack, apis
    await apis.close()


@pytest.mark.timeout(240)
async def test_rolling_restart_under_load_loses_nothing_and_doubles_nothing(
    rolling: tuple[Stack, TwoApis],
) -> None:
    stack, apis = rolling
    agents = [await stack.start_agent("async"), await stack.start_agent("sync")]
    await agents[1].script("message/send", Reply(delay_seconds=1), repeat=True)
    load = Load(stack, apis, f"/agents/{agents[0].id}/schedules")
    answering = Load(stack, apis, f"/agents/{agents[1].id}/schedules")
    for who, count in ((load, DELIVERED), (answering, ANSWERED)):
        for place in range(count):
            await who.create(f"steady-{place}", interval_seconds=EVERY_SECONDS)
    steady = {schedule["id"]: schedule for who in (load, answering) for schedule in who.made.values()}
    await until_all_ran(stack, steady, await stack.now())
    async with under_load(load):
        await restart_each(stack, apis, steady)
    ended = {schedule_id: await pause(stack, apis, steady[schedule_id]) for schedule_id in steady}
    await until_ticked(stack, await stack.now())
    await stack.until_finished(len(steady))

    rows = await stack.runs()
    for schedule_id, active in ended.items():
        assert_owed([row for row in rows if str(row.schedule_id) == schedule_id], [active])
    assert_owed(rows_of(rows, load.made["toggled"]), load.intervals)
    assert {row.outcome for row in rows} <= WELL | {PAUSED}
    assert_each_input_once(rows, agents)
    await assert_no_request_lost(stack, load, rows)


async def restart_each(stack: Stack, apis: TwoApis, steady: dict[str, dict[str, Any]]) -> None:
    """One process after the other: ended by SIGTERM, met as gone, replaced; all schedules go on."""
    old = list(stack.workers)
    for place in range(2):
        api = apis.processes[place]
        await end(api, DRAIN_SECONDS)

        async def is_missed(reason: str = f"refused by {place}") -> bool:
            return apis.met[reason] > 0

        await stack.until(is_missed, "a request that met the gap")
        await until_all_ran(stack, steady, await stack.now())
        api.start()
        await asyncio.to_thread(api.wait_until_ready, f"{apis.urls[place]}/readyz")
        await until_answering(stack, old[place])
        await end(old[place].process, DRAIN_SECONDS)
        await until_all_ran(stack, steady, await stack.now())
        await asyncio.to_thread(stack.start_worker)
        await until_all_ran(stack, steady, await stack.now())


@asynccontextmanager
async def under_load(load: Load) -> AsyncGenerator[None]:
    """Requests go on in the block, and what they were about is finished behind it; each must succeed."""
    stop = asyncio.Event()
    toggled = await load.create("toggled", interval_seconds=EVERY_SECONDS)

    async def call(caller: int) -> None:
        await repeat(stop, lambda count: load.make_one_and_change_it(caller, count))

    async with asyncio.TaskGroup() as group:
        for caller in range(CALLERS):
            group.create_task(call(caller))
        group.create_task(repeat(stop, lambda _: load.pause_and_resume(toggled)))
        try:
            yield
        finally:
            stop.set()
    load.intervals.append(await pause(load.stack, load.apis, toggled))


async def pause(stack: Stack, apis: TwoApis, schedule: dict[str, Any]) -> Active:
    """Pause a schedule for good; returns when it was active last."""
    path = f"/agents/{schedule['agent_id']}/schedules/{schedule['id']}"
    paused = await apis.call("POST", f"{path}/pause", {})
    return Active(_moment(schedule) + ACTIVE_AFTER, _moment(paused), await stack.now())


async def until_all_ran(stack: Stack, schedules: dict[str, dict[str, Any]], after: datetime) -> None:
    """Return when each schedule has had an input delivered or answered for an instant after the moment."""

    async def ran() -> bool:
        found = await stack.runs()
        well = {str(row.schedule_id) for row in found if row.due_at > after and row.outcome in WELL}
        return schedules.keys() <= well

    await stack.until(ran, f"a run of each schedule after {after}")


async def until_answering(stack: Stack, worker: WorkerProcess) -> None:
    """Return when a sync agent's answer is open at the worker: what its end must not cost."""

    async def answering() -> bool:
        return await worker.in_flight("answer") > 0

    await stack.until(answering, "an open answer at the worker")


async def until_ticked(stack: Stack, moment: datetime) -> None:
    """Return when the clock has been ticked past a moment: none is open any more that began before it."""

    async def ticked() -> bool:
        found = await stack.sql(
            "SELECT next_due_at FROM clocks WHERE cadence_key = :key", key=f"interval {EVERY_SECONDS}"
        )
        return found[0]["next_due_at"] > moment

    await stack.until(ticked, "a tick after the last pause")


def assert_owed(rows: list[LedgerRow], intervals: list[Active]) -> None:
    """Each instant of each interval has one row; a tick beside a pause may have made one more."""
    found = instants(rows)
    assert len(found) == len(set(found))
    owed = {due for active in intervals for due in _instants(active.active_from, active.paused_at)}
    perhaps = {due for active in intervals for due in _instants(active.paused_at, active.answered)}
    assert owed - set(found) == set()
    assert set(found) - owed - perhaps == set()


def assert_each_input_once(rows: list[LedgerRow], agents: list[FaultAgent]) -> None:
    """What was delivered or answered has reached its agent once, at the first attempt; nothing else has."""
    sent = agents[0].sent() + agents[1].sent()
    well = [row for row in rows if row.outcome in WELL]
    assert sent == Counter(str(row.task_id) for row in well)
    assert {row.attempt for row in well} == {1}


async def assert_no_request_lost(stack: Stack, load: Load, rows: list[LedgerRow]) -> None:
    """What was answered is so: each schedule is there once, as answered last; each key has its one run."""
    statement = "SELECT id::text, name, version, paused FROM agent_run_schedules WHERE agent_id::text = :id"
    found = await stack.sql(statement, id=load.path.split("/")[2])
    made = [(row["id"], row["name"], row["version"], row["paused"]) for row in found]
    names = [name for name in load.made if name.startswith("made-")]
    answered = [(load.made[name]["id"], name, load.made[name]["version"], False) for name in names]
    assert sorted(row for row in made if row[1] in names) == sorted(answered)
    assert len(made) == len(load.made)
    manual = sorted((str(row.schedule_id), str(row.id)) for row in rows if row.cause == "manual")
    assert manual == sorted((load.made[name]["id"], load.runs[name]) for name in names)
    assert {load.made[name]["version"] for name in names} == {5}


def rows_of(rows: list[LedgerRow], schedule: dict[str, Any]) -> list[LedgerRow]:
    """The rows of one schedule."""
    return [row for row in rows if str(row.schedule_id) == schedule["id"]]


def _instants(after: datetime, until: datetime) -> list[datetime]:
    first = datetime.fromtimestamp((after.timestamp() // EVERY_SECONDS + 1) * EVERY_SECONDS, tz=after.tzinfo)
    return [due for due in every(EVERY_SECONDS, first, until) if due <= until] if first <= until else []


def _moment(schedule: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(schedule["updated_at"])
