"""launch_page: claim what is due, prepare it, send it through the agents' windows, record what came of it.

A run goes claim → task/create → mark → send → record. The mark (sending_at, committed before the request
leaves) is what keeps it from being sent twice; it is written under the launch's token, so a process that
lost its claim starts nothing further.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from uuid import UUID

from agentex.database import DATABASE_ERRORS, JsonObject, is_unavailable
from agentex.errors import AgentCallFailed, AgentUnreachable, OutcomeUnknown
from agentex.executors.base import Answer, Lane
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.runs.claims import (
    Claimed,
    Held,
    claim_page,
    read_held,
    release,
    renew,
    seconds_to_next_attempt,
)
from agentex.runs.dispatch import Dispatch, Mark, Marked, Window
from agentex.runs.finish import (
    Failed,
    Outcome,
    Recorded,
    mark_running,
    outcome_of_failure,
    outcome_of_success,
    outcome_of_wait,
)
from agentex.runs.models import RunReason, RunStatus
from agentex.runs.pages import PageRef
from agentex.runs.prepare import Prepared, prepare
from agentex.runs.stop import stop_at_agent
from agentex.telemetry.metrics import UNEXPECTED_ERRORS

log = logging.getLogger(__name__)

# How often a page looks whether one of its waiting runs is due while others are still being answered.
LOOK_SECONDS = 1.0
# An answer that is open longer than this is shown as running.
RUNNING_AFTER_SECONDS = 1.0


class Step(Enum):
    """How far a run of this launch has come; what may be done with it follows from it."""

    QUEUED = auto()  # waits for a place in the agent's window
    OPENING = auto()  # task/create, which may be repeated
    OPENED = auto()  # waits for a place among those that are marked
    MARKING = auto()  # perhaps marked, certainly not sent
    SENDING = auto()  # the input may have reached the agent
    RECORDING = auto()


class Cut(Enum):
    """Why a run's sending is cut short."""

    CANCELED = "canceled"
    NOT_OURS = "not ours any more"


@dataclass
class _InFlight:
    item: Prepared
    step: Step = Step.QUEUED
    cut: Cut | None = None
    task: asyncio.Task[None] | None = None


@dataclass
class Launch:
    """One launch of one page. `stop` lets what is in flight end and starts nothing new."""

    resources: Resources
    dispatch: Dispatch
    page: PageRef
    stop: asyncio.Event
    beat: Callable[[], None]
    token: UUID = field(default_factory=new_id)
    in_flight: dict[UUID, _InFlight] = field(default_factory=dict[UUID, _InFlight])
    # Those in flight, and those that are being prepared: their claims are renewed.
    holding: set[UUID] = field(default_factory=set[UUID])
    unsent: list[UUID] = field(default_factory=list[UUID])
    timeouts: dict[UUID, int] = field(default_factory=dict[UUID, int])
    next_look: float = 0.0

    async def run(self) -> float | None:
        """Carry the page as far as it goes now; returns in how many seconds it has work again, or None."""
        # Apart, since a statement that hangs must not hold up the heartbeat.
        keepers = [asyncio.create_task(self._beat_on()), asyncio.create_task(self._keep_claims())]
        try:
            await self._carry()
        finally:
            for keeper in keepers:
                keeper.cancel()
                with suppress(asyncio.CancelledError):
                    await keeper
        async with self.resources.db.read() as session:
            return await seconds_to_next_attempt(session, self.page)

    async def _carry(self) -> None:
        try:
            while True:
                if not self.stop.is_set() and self._loop_time() >= self.next_look:
                    await self._look()
                if not self.in_flight:
                    break
                if self.stop.is_set():
                    self._cut_waiting()
                await asyncio.wait(self._tasks(), timeout=LOOK_SECONDS)
                await self._release_unsent()
        except BaseException:
            # A shutdown that has waited long enough, or a fault of ours: nothing may go on unattended.
            await self._cut_all()
            raise
        finally:
            await self._release_unsent()

    async def _look(self) -> None:
        """Start what is due. A database that is away ends a page only while nothing of it is open."""
        self.next_look = self._loop_time() + LOOK_SECONDS
        try:
            await self._start_due()
        except DATABASE_ERRORS as error:
            if not is_unavailable(error) or not self.in_flight:
                raise
            log.warning("a page waits for the database", extra={"action": "page.look"})

    async def _start_due(self) -> None:
        async with self.resources.db.begin() as session:
            # A run that this process holds may be due again, or look expired, since the process or the
            # database was stopped; it is left alone until its sending has ended here.
            claimed = await claim_page(
                session, self.resources.settings, self.page, self.token, leave=list(self.dispatch.held)
            )
        if not claimed:
            return
        self._hold([run.id for run in claimed])
        # A new attempt: an agent that was silent is asked again.
        self.timeouts.clear()
        try:
            ready, outcomes = await self._prepare(claimed)
        except BaseException:
            self._let_go([run.id for run in claimed])
            self.unsent += [run.id for run in claimed]
            raise
        for item in ready:
            flight = _InFlight(item)
            self.in_flight[item.run.id] = flight
            flight.task = asyncio.create_task(self._send(flight))
        await asyncio.gather(*[self._end_unsent(outcome) for outcome in outcomes])

    async def _prepare(self, claimed: Sequence[Claimed]) -> tuple[list[Prepared], list[Outcome]]:
        """Prepare runs together; one by one where that fails, so that a run that cannot be is alone in it."""
        try:
            return await prepare(self.resources, claimed, self.token, self.dispatch.preparing)
        except Exception as error:
            if is_unavailable(error):
                raise
            if len(claimed) == 1:
                return [], [self._fault(claimed[0].id, RunReason.OURS, error)]
        ready: list[Prepared] = []
        outcomes: list[Outcome] = []
        for run in claimed:
            more_ready, more_outcomes = await self._prepare([run])
            ready += more_ready
            outcomes += more_outcomes
        return ready, outcomes

    async def _end_unsent(self, outcome: Outcome) -> None:
        try:
            await self.dispatch.outcomes.submit(outcome)
            if outcome.status is RunStatus.CANCELED:
                # One that was tried before has a task, of which the agent may know.
                await stop_at_agent(self.resources, outcome.run_id)
        finally:
            self._let_go([outcome.run_id])

    def _hold(self, ids: Collection[UUID]) -> None:
        self.holding.update(ids)
        self.dispatch.held.update(ids)

    def _let_go(self, ids: Collection[UUID]) -> None:
        self.holding.difference_update(ids)
        self.dispatch.held.difference_update(ids)

    async def _send(self, flight: _InFlight) -> None:
        run = flight.item.run
        try:
            async with self.dispatch.window(run.agent_id, flight.item.executor.lane) as window:
                written = await self._open_and_send(flight, window)
            if written is None:
                self.unsent.append(run.id)
                return
            outcome, recorded = written
            unwanted = recorded.cancel_requested and outcome.delivered
            if recorded.mine and (unwanted or outcome.status is RunStatus.CANCELED):
                await stop_at_agent(self.resources, run.id)
        except asyncio.CancelledError:
            await self._after_cut(flight)
        except Exception as error:  # noqa: BLE001 - nobody awaits this task's result: logged, counted, recorded
            await self._after_fault(flight, error)
        finally:
            del self.in_flight[run.id]
            self._let_go([run.id])

    async def _open_and_send(self, flight: _InFlight, window: Window) -> tuple[Outcome, Recorded] | None:
        """Carry one run to its recorded outcome; None when it may not be sent any more."""
        if self.stop.is_set():
            return None
        flight.step = Step.OPENING
        not_opened = await self._open_task(flight.item, window)
        if not_opened is not None:
            return not_opened, await self._record(flight, not_opened)
        flight.step = Step.OPENED
        async with window.marked:
            if self.stop.is_set():
                return None
            outcome = await self._mark_and_send(flight, window)
            return None if outcome is None else (outcome, await self._record(flight, outcome))

    async def _open_task(self, item: Prepared, window: Window) -> Outcome | None:
        """None when the agent knows the task; else what becomes of the run."""
        if not item.executor.opens_task or item.run.task_created:
            return None
        async with window.opening, window.requests:
            if (silent := self._silent(item)) is not None:
                return silent
            try:
                await item.executor.open_task(item.delivery)
            except AgentCallFailed as failure:
                return self._failed(item, failure)
        return None

    async def _mark_and_send(self, flight: _InFlight, window: Window) -> Outcome | None:
        """What came of it; None when its claim was lost before it was sent."""
        item = flight.item
        if (silent := self._silent(item)) is not None:
            return silent
        flight.step = Step.MARKING
        asked_at = self._loop_time()
        try:
            marked = await self.dispatch.marks.submit(Mark(item.run.id, self.token, item.executor.opens_task))
        except DATABASE_ERRORS as error:
            if not is_unavailable(error):
                raise
            # Perhaps marked, certainly not sent: the record clears the mark.
            return outcome_of_wait(item.run, self.token, item.definition, "the database was away")
        if marked is Marked.LOST:
            return None
        if marked is Marked.CANCELED:
            return Outcome(item.run.id, self.token, RunStatus.CANCELED)
        async with window.requests:
            if self._loop_time() - asked_at > self.resources.settings.claim_seconds / 2:
                # This process was stopped since: its claim may be gone, so nothing is sent on its strength.
                return outcome_of_wait(item.run, self.token, item.definition, "the worker was stopped")
            flight.step = Step.SENDING
            answer = await self._answer(flight)
        if answer.failure is not None:
            return self._failed(item, answer.failure, answer.output)
        self.timeouts.pop(item.run.agent_id, None)
        return outcome_of_success(item.run, self.token, item.definition, answer.output)

    def _silent(self, item: Prepared) -> Outcome | None:
        """What becomes of a run whose agent has let too many requests in a row pass."""
        limit = self.resources.settings.agent_timeouts_in_a_row
        if self.timeouts.get(item.run.agent_id, 0) < limit:
            return None
        # Not asked again now, so it certainly has not begun.
        silent = AgentUnreachable(f"the agent did not answer {limit} times in a row")
        failed = Failed(silent, item.executor.repeats_agent_error, health=item.agent_health)
        return outcome_of_failure(item.run, self.token, item.definition, failed)

    def _failed(
        self, item: Prepared, failure: AgentCallFailed, partial: list[JsonObject] | None = None
    ) -> Outcome:
        """The outcome of a request that did not go well; counts those that were not answered at all."""
        silent = isinstance(failure, OutcomeUnknown)
        self.timeouts[item.run.agent_id] = self.timeouts.get(item.run.agent_id, 0) + 1 if silent else 0
        failed = Failed(failure, item.executor.repeats_agent_error, partial, item.agent_health)
        return outcome_of_failure(item.run, self.token, item.definition, failed)

    async def _record(self, flight: _InFlight, outcome: Outcome) -> Recorded:
        flight.step = Step.RECORDING
        return await self.dispatch.outcomes.submit(outcome)

    async def _answer(self, flight: _InFlight) -> Answer:
        shown: list[asyncio.Task[None]] = []

        def begun() -> None:
            shown.append(asyncio.create_task(self._show_running(flight)))

        try:
            return await flight.item.executor.send(flight.item.delivery, begun)
        finally:
            for task in shown:
                task.cancel()

    async def _show_running(self, flight: _InFlight) -> None:
        await asyncio.sleep(RUNNING_AFTER_SECONDS)
        try:
            async with self.resources.db.begin() as session:
                await mark_running(session, flight.item.run.id, self.token)
        except DATABASE_ERRORS as error:
            _note(error, "a run could not be shown as running", "run.running")

    async def _after_cut(self, flight: _InFlight) -> None:
        """Write what is known of a run whose sending was cut short."""
        run = flight.item.run
        if flight.cut is Cut.NOT_OURS or flight.step is Step.RECORDING:
            return
        if flight.cut is Cut.CANCELED:
            recorded = await self.dispatch.outcomes.submit(Outcome(run.id, self.token, RunStatus.CANCELED))
            if recorded.mine:
                await stop_at_agent(self.resources, run.id)
        elif flight.step in (Step.QUEUED, Step.OPENING, Step.OPENED):
            self.unsent.append(run.id)
        elif flight.step is Step.MARKING:
            await self.dispatch.outcomes.submit(
                Outcome(run.id, self.token, RunStatus.DUE, retry_in_seconds=0)
            )
        else:
            message = "the worker was shut down before the agent's answer came"
            await self.dispatch.outcomes.submit(
                Outcome(run.id, self.token, RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, message)
            )

    async def _after_fault(self, flight: _InFlight, error: Exception) -> None:
        sent = flight.step in (Step.SENDING, Step.RECORDING)
        reason = RunReason.OUTCOME_UNKNOWN if sent else RunReason.OURS
        await self.dispatch.outcomes.submit(self._fault(flight.item.run.id, reason, error))

    def _fault(self, run_id: UUID, reason: RunReason, error: Exception) -> Outcome:
        """The end of a run that met a fault of ours, which is logged and counted."""
        UNEXPECTED_ERRORS.labels(where="launch").inc()
        log.error(
            "a run met a fault of ours", extra={"action": "run.fault", "run_id": str(run_id)}, exc_info=error
        )
        message = f"{type(error).__name__} in this service; its log has the run's id"
        return Outcome(run_id, self.token, RunStatus.FAILED, reason, message)

    async def _beat_on(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(self.resources.settings.claim_renew_seconds)

    async def _keep_claims(self) -> None:
        """Read cancels, renew claims; ends only by being canceled."""
        settings = self.resources.settings
        renewed = self._loop_time()
        while True:
            await asyncio.sleep(settings.claim_renew_seconds)
            ids, flights = list(self.holding), dict(self.in_flight)
            if not ids:
                continue
            try:
                async with self.resources.db.single() as session:
                    held = await read_held(session, self.token, ids)
                    if self._loop_time() - renewed > settings.claim_seconds / 3:
                        await renew(session, settings, self.token, ids)
                        renewed = self._loop_time()
            except DATABASE_ERRORS as error:
                _note(error, "claims wait for the database", "run.renew")
                continue
            # Only what was in flight when this was read: a run may be recorded and claimed again by now.
            self._cut_unheld(
                [flight for run_id, flight in flights.items() if self.in_flight.get(run_id) is flight], held
            )

    def _cut_unheld(self, flights: Collection[_InFlight], held: Held) -> None:
        for flight in flights:
            run_id, lane = flight.item.run.id, flight.item.executor.lane
            # What is cut already writes its end: with the first cut's outcome the run is held no more, and a
            # second cut would leave its task open.
            if flight.task is None or flight.step is Step.RECORDING or flight.cut is not None:
                continue
            if run_id not in held.ids:
                # A request that has left is let end: dropping it would not unsend it.
                if flight.step is Step.SENDING and lane is Lane.DELIVER:
                    continue
                flight.cut = Cut.NOT_OURS
            elif run_id in held.cancel and lane is Lane.ANSWER:
                flight.cut = Cut.CANCELED
            else:
                continue
            flight.task.cancel()

    def _cut_waiting(self) -> None:
        for flight in self.in_flight.values():
            if flight.step in (Step.QUEUED, Step.OPENED) and flight.task is not None:
                flight.task.cancel()

    async def _cut_all(self) -> None:
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _release_unsent(self) -> None:
        if not self.unsent:
            return
        unsent, self.unsent = self.unsent, []
        try:
            async with self.resources.db.begin() as session:
                await release(session, self.token, unsent)
        except DATABASE_ERRORS as error:
            if not is_unavailable(error):
                raise
            log.warning("unsent runs wait for their claims to expire", extra={"action": "run.release"})

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [flight.task for flight in self.in_flight.values() if flight.task is not None]

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()


def _note(error: Exception, waits: str, action: str) -> None:
    """Log what the database did not do beside a sending, which goes on; what is no outage is counted."""
    if is_unavailable(error):
        log.warning(waits, extra={"action": action})
        return
    UNEXPECTED_ERRORS.labels(where=action).inc()
    log.error("the database refused what goes with a sending", extra={"action": action}, exc_info=error)
