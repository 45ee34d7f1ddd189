"""The ledger against a model: whatever happens in whatever order, each owed instant has its one row.

Hypothesis makes up the order. The services, Postgres and the statements are the real ones; the database's
clock is the machine's own, so an outage of two hours takes no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType] - it has no types
)

from agentex.agents.models import Agent
from agentex.auth.authorize import AuthProvider
from agentex.database import rows
from agentex.errors import InvalidInput
from agentex.idempotency import Repeat
from agentex.ids import fire_id, new_id
from agentex.resources import Resources, open_resources
from agentex.schedules import open as open_module
from agentex.schedules import service, settle
from agentex.schedules.models import ScheduleCreate, ScheduleUpdate
from agentex.schedules.open import open_due, open_missed_by_attach
from agentex.schedules.service import Target
from agentex.settings import Settings
from tests.api.ledger.stage import (
    CALLER,
    INPUT,
    NOON,
    add_agent,
    fetch,
    freeze,
    open_all,
    open_once,
    seconds,
    waiting_for_locks,
)
from tests.support.ledger_model import LATE_AFTER, Every, Outcome, Owing, Window

T = TypeVar("T")

# Instants that coincide, clocks that are shared, whole minutes and others, cron and interval.
CADENCES = (
    Every(20),
    Every(60),
    Every(90),
    Every(900),
    Every(300, cron="*/5 * * * *"),
    Every(3600, 300, cron="5 * * * *"),
)
MOST_SCHEDULES = 4
EXAMPLES = 120
STEPS_EACH = 30
# So that a long backlog is opened and settled in pieces.
SMALL_ROUND = 150
WHOLE_ROUND = open_module.ROWS_PER_ROUND
_EMPTY = """
    WITH a AS (DELETE FROM runs), b AS (DELETE FROM schedule_clocks), c AS (DELETE FROM schedule_revisions),
        d AS (DELETE FROM schedule_totals), e AS (DELETE FROM idempotency_keys)
    SELECT 1
"""

# Beyond what is on time, beyond what is caught up, and the last seconds before and after each.
OUTAGES = st.sampled_from([29, 30, 31, 45, 100, 400, 3599, 3600, 3601, 7300])
STEPS = st.sampled_from([1, 1, 2, 5, 10, 20, 60])
OFFSETS = st.sampled_from([-1, 0, 1])
PLACES = st.integers(0, MOST_SCHEDULES - 1)
# How long a transaction that read the clock took to its commit.
LAGS = st.sampled_from([0, 2, 25])
# Ends of a window, in seconds from now.
STARTS = st.sampled_from([None, None, -3600, -50, 40, 1000])
ENDS = st.sampled_from([None, None, -45, 100, 1900, 9000])


@dataclass(frozen=True)
class World:
    """What all examples share: an event loop, real resources in it, and the clock that is set."""

    runner: asyncio.Runner
    resources: Resources
    monkeypatch: pytest.MonkeyPatch

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Take one step."""
        return self.runner.run(step)


class CrashedError(Exception):
    """The process is gone in the middle of a transaction."""


class LedgerMachine(RuleBasedStateMachine):
    """Schedules that are made and changed, time that passes, ticks that come, fail or come twice."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.resources = world.resources
        self.schedules: dict[UUID, Owing] = {}
        self.now = NOON
        self.agreed = True
        self.agent = world.run(self._begin())

    async def _begin(self) -> Agent:
        for statement in (
            _EMPTY,
            "DELETE FROM agent_run_schedules",
            "DELETE FROM clocks",
            "DELETE FROM agents",
        ):
            await fetch(self.resources, statement)
        return await add_agent(self.resources)

    @initialize()
    def begin(self) -> None:
        """Two schedules of one cadence: most of what follows needs some."""
        freeze(self.world.monkeypatch, self.now)
        for _ in range(2):
            self._create(CADENCES[0], Window(), 0, paused=False)

    # Time.

    @rule(step=STEPS)
    def time_passes(self, step: int) -> None:
        """The clock goes on."""
        self._move_to(self.now + seconds(step))

    @rule(step=OUTAGES)
    def nothing_ticks_for_a_while(self, step: int) -> None:
        """Temporal or the workers are down."""
        self._move_to(self.now + seconds(step))

    @rule(place=PLACES, offset=OFFSETS)
    def time_comes_to_an_instant(self, place: int, offset: int) -> None:
        """To a second before an instant, to it, or past it."""
        coming = [s.coming(self.now, 1) for s in self._living()]
        if coming and coming[place % len(coming)]:
            self._move_to(max(coming[place % len(coming)][0] + seconds(offset), self.now))

    # Who opens.

    @rule()
    def tick(self) -> None:
        """What is owed has its rows."""
        self._expect_opened(must=True)
        self._agree(open_all(self.resources))

    @rule()
    def two_ticks(self) -> None:
        """At once, in two processes."""

        async def both() -> None:
            await asyncio.gather(open_all(self.resources), open_all(self.resources))

        self._expect_opened(must=True)
        self._agree(both())

    @rule(committed=st.integers(0, 2))
    def tick_crashes(self, committed: int) -> None:
        """After so many rounds, within the next; nothing of that one is there."""

        async def crash() -> None:
            for _ in range(committed):
                await open_once(self.resources)
            with suppress(CrashedError):
                async with self.resources.db.begin() as session:
                    await open_due(session, self.resources.settings, new_id(), by="test")
                    raise CrashedError

        self._expect_opened(must=False)
        self._agree(crash())

    @rule()
    def tick_is_repeated(self) -> None:
        """Its process was gone between the commit and the answer: the same batch again, then the rest."""

        async def repeat() -> None:
            batch_id = new_id()
            first = await open_once(self.resources, batch_id)
            again = await open_once(self.resources, batch_id)
            assert first.lanes in ({}, again.lanes)
            await open_all(self.resources)

        self._expect_opened(must=True)
        self._agree(repeat())

    @rule()
    def sweep(self) -> None:
        """Opens the clocks that are overdue, then looks at new attachments."""
        for schedule in self._living():
            overdue = any(i <= self.now - LATE_AFTER for i in schedule.owed - schedule.unseen)
            schedule.expect_opened(self.now, must=overdue)
            schedule.expect_looked_at(self.now)
        self._agree(self._sweep())

    async def _sweep(self) -> None:
        overdue, more = self.resources.settings.late_after_seconds, True
        while more:
            async with self.resources.db.begin() as session:
                more = (
                    await open_due(
                        session, self.resources.settings, new_id(), by="sweep", overdue_seconds=overdue
                    )
                ).more
        await self._look()

    async def _look(self) -> None:
        # Whole, as it is meant: a look takes one piece, of 20,000 instants, and then counts as done.
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(open_module, "ROWS_PER_ROUND", WHOLE_ROUND)
            await self._look_once()

    async def _look_once(self) -> None:
        async with self.resources.db.begin() as session:
            await open_missed_by_attach(session, self.resources.settings, new_id(), by="attach")

    # Who changes.

    @precondition(lambda self: len(self.schedules) < MOST_SCHEDULES)
    @rule(cadence=st.sampled_from(CADENCES), start=STARTS, end=ENDS, lag=LAGS, paused=st.booleans())
    def create(self, cadence: Every, start: int | None, end: int | None, lag: int, *, paused: bool) -> None:
        """Whose commit may come after instants have passed."""
        if lag == 0:
            # The last moment at which the coming instant is not owed yet.
            self._move_to(
                cadence.between(self.now + seconds(1), self.now + seconds(2 * cadence.period))[0] - seconds(1)
            )
        self._create(cadence, self._window(start, end), lag, paused=paused)

    def _create(self, cadence: Every, window: Window, lag: int, *, paused: bool) -> None:
        began = self.now - seconds(lag)
        name = f"s{len(self.schedules)}"
        keys = {"name": name, "initial_input": INPUT, "paused": paused, **cadence.keys, **window.keys}
        body = ScheduleCreate.model_validate(keys)
        repeat = Repeat(fingerprint=new_id().hex, body_hash="", retry_count=0, key=None)
        creating = service.create(self.resources, CALLER, str(self.agent.id), body, repeat)
        with self._clock_at(began):
            if not window.is_possible(cadence, began):
                self._refused(creating)
                return
            made = self.world.run(creating)
        schedule = Owing(cadence, window, None, self.now, created_at=began, changed_at=self.now)
        if not paused:
            schedule.activate(began, self.now)
        self.schedules[made.id] = schedule

    @rule(place=PLACES, cadence=st.sampled_from(CADENCES))
    def patch_cadence(self, place: int, cadence: Every) -> None:
        """What was owed of the old one is settled; the new one is owed from now on, without a gap."""
        found = self._find(place)
        if found is None:
            return
        schedule_id, schedule = found
        patching = self._patch(schedule_id, cadence.keys)
        if cadence == schedule.cadence:
            self._agree(patching)
        elif not schedule.window.is_possible(cadence, schedule.created_at):
            self._refused(patching)
        else:
            if schedule.active_from is not None:
                schedule.expect_settled("definition_changed")
            self._agree(patching)
            schedule.cadence = cadence
            self._reattach(schedule)

    @rule(place=PLACES, start=STARTS, end=ENDS)
    def patch_window(self, place: int, start: int | None, end: int | None) -> None:
        """What falls out of the new window is settled."""
        found = self._find(place)
        if found is None:
            return
        schedule_id, schedule = found
        window = self._window(start, end)
        patching = self._patch(schedule_id, window.keys)
        if window == schedule.window:
            self._agree(patching)
        elif not window.is_possible(schedule.cadence, schedule.created_at):
            self._refused(patching)
        else:
            if schedule.active_from is not None:
                schedule.expect_window(window)
            self._agree(patching)
            schedule.change_window(window, self.now)

    @rule(place=PLACES, beside_a_tick=st.booleans())
    def pause(self, place: int, *, beside_a_tick: bool) -> None:
        """Alone, or committed while a tick opens the same instants, which has not seen its rows."""
        found = self._find(place)
        if found is None:
            return
        schedule_id, schedule = found
        if beside_a_tick and schedule.active_from is not None and not schedule.owed:
            self._move_to(max(schedule.coming(self.now, 1), default=self.now))
        pausing = service.pause(self.resources, CALLER, self._target(schedule_id), None)
        schedule.expect_settled("paused")
        if beside_a_tick and schedule.active_from is not None:
            self._expect_opened(must=True)
            self._agree(self._commit_under_a_tick(pausing))
        else:
            self._agree(pausing)
        if schedule.active_from is not None:
            schedule.active_from = None
            schedule.changed_at = self.now

    async def _commit_under_a_tick(self, change: Coroutine[Any, Any, object]) -> None:
        async with self.resources.db.begin() as session:
            # What a change writes last: it waits with its rows inserted, and a tick then waits for those.
            await rows(session, "LOCK TABLE schedule_revisions IN SHARE MODE")
            changing = asyncio.create_task(change)
            await waiting_for_locks(self.resources, 1)
            ticking = asyncio.create_task(open_all(self.resources))
            waiting = asyncio.create_task(waiting_for_locks(self.resources, 2))
            await asyncio.wait({ticking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        await asyncio.gather(changing, ticking)
        await asyncio.wait({waiting})

    @rule(place=PLACES, lag=LAGS)
    def resume(self, place: int, lag: int) -> None:
        """Whose commit may come after instants have passed."""
        found = self._find(place)
        if found is None:
            return
        schedule_id, schedule = found
        began = max(self.now - seconds(lag), schedule.changed_at)
        with self._clock_at(began):
            self._agree(service.resume(self.resources, CALLER, self._target(schedule_id), None))
        if schedule.active_from is None:
            schedule.activate(began, self.now)
            schedule.changed_at = self.now

    @rule(place=PLACES, ahead=st.integers(0, 2))
    def skip(self, place: int, ahead: int) -> None:
        """One coming instant."""
        found = self._find(place)
        coming = found[1].coming(self.now, 3) if found else []
        if found is not None and ahead < len(coming):
            target = self._target(found[0])
            self._agree(service.skip(self.resources, CALLER, target, coming[ahead]))
            found[1].skips.add(coming[ahead])

    @rule(place=PLACES)
    def unskip(self, place: int) -> None:
        """One that is skipped and still ahead."""
        found = self._find(place)
        skipped = [i for i in found[1].coming(self.now, 3) if i in found[1].skips] if found else []
        if found is not None and skipped:
            target = self._target(found[0])
            self._agree(service.unskip(self.resources, CALLER, target, skipped[0]))
            found[1].skips.remove(skipped[0])

    @precondition(lambda self: len(self.schedules) == MOST_SCHEDULES)
    @rule(place=PLACES)
    def delete(self, place: int) -> None:
        """What it owed has its rows; nothing comes after them."""
        found = self._find(place)
        if found is None:
            return
        schedule_id, schedule = found
        schedule.expect_settled("schedule_deleted")
        self._agree(service.delete(self.resources, CALLER, self._target(schedule_id)))
        schedule.active_from = None
        schedule.deleted = True

    def teardown(self) -> None:
        """In the end a look and a tick leave nothing that is owed without its row."""
        if self.agreed:
            for schedule in self._living():
                schedule.expect_looked_at(self.now)
            self._agree(self._look())
            self.tick()
            assert all(schedule.owed == set() for schedule in self.schedules.values())

    # What the rules share.

    def _move_to(self, now: datetime) -> None:
        self.now = now
        freeze(self.world.monkeypatch, now)
        for schedule in self._living():
            schedule.pass_time(now)

    @contextmanager
    def _clock_at(self, moment: datetime) -> Generator[None]:
        """What a transaction that began then has read."""
        freeze(self.world.monkeypatch, moment)
        yield
        freeze(self.world.monkeypatch, self.now)

    def _agree(self, step: Coroutine[Any, Any, object]) -> None:
        """Take the step; the ledger must be as the model says."""
        self.agreed = False
        self.world.run(step)
        found = self.world.run(self._ledger())
        assert found.keys() <= self.schedules.keys()
        for schedule_id, schedule in self.schedules.items():
            schedule.compare(found.get(schedule_id, []))
        self.agreed = True

    def _refused(self, step: Coroutine[Any, Any, object]) -> None:
        async def refuse() -> None:
            with pytest.raises(InvalidInput):
                await step

        self._agree(refuse())

    async def _ledger(self) -> Mapping[UUID, list[tuple[datetime, Outcome]]]:
        found: dict[UUID, list[tuple[datetime, Outcome]]] = {}
        sql = "SELECT schedule_id, due_at, fire_id, cause, status, reason FROM runs"
        for row in await fetch(self.resources, sql):
            assert row["fire_id"] == fire_id(row["due_at"])
            outcome = (row["cause"], row["status"], row["reason"])
            found.setdefault(row["schedule_id"], []).append((row["due_at"], outcome))
        return found

    def _living(self) -> list[Owing]:
        return [schedule for schedule in self.schedules.values() if not schedule.deleted]

    def _find(self, place: int) -> tuple[UUID, Owing] | None:
        living = [(schedule_id, s) for schedule_id, s in self.schedules.items() if not s.deleted]
        return living[place % len(living)] if living else None

    def _target(self, schedule_id: UUID) -> Target:
        return Target(str(self.agent.id), schedule_id=str(schedule_id))

    def _window(self, start: int | None, end: int | None) -> Window:
        return Window(
            None if start is None else self.now + seconds(start),
            None if end is None else self.now + seconds(end),
        )

    async def _patch(self, schedule_id: UUID, keys: Mapping[str, object]) -> object:
        body = ScheduleUpdate.model_validate(keys)
        return await service.update(self.resources, CALLER, self._target(schedule_id), body)

    def _expect_opened(self, *, must: bool) -> None:
        for schedule in self._living():
            schedule.expect_opened(self.now, must=must)

    def _reattach(self, schedule: Owing) -> None:
        schedule.changed_at = self.now
        if schedule.active_from is not None:
            schedule.activate(self.now, self.now, after=timedelta(0))


@pytest.fixture
def world(settings: Settings, authz: AuthProvider) -> Iterator[World]:
    """One for all examples, in an event loop of its own: hypothesis takes its steps outside of any."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        monkeypatch.setattr(open_module, "ROWS_PER_ROUND", SMALL_ROUND)
        monkeypatch.setattr(settle, "ROWS_AT_ONCE", SMALL_ROUND)
        stack = AsyncExitStack()
        resources = runner.run(stack.enter_async_context(open_resources(settings, authz=authz)))
        yield World(runner, resources, monkeypatch)
        runner.run(stack.aclose())


# Hypothesis shrinks what fails for up to five minutes; what holds takes half of one.
@pytest.mark.timeout(420)
def test_whatever_happens_in_whatever_order_each_owed_instant_has_its_one_row(world: World) -> None:
    class Machine(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS_EACH,
            derandomize=True,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
