"""How runs end: what became of a sending, and what a task's end means for its run.

One function per transition; each runs in its caller's transaction, with what follows from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import JsonObject, after_commit, rows, storable
from agentex.errors import (
    AgentCallFailed,
    AgentError,
    AgentProtocolError,
    AgentUnreachable,
    OutcomeUnknown,
)
from agentex.ids import run_message_id
from agentex.messages.bulk import NewMessage, ensure_messages
from agentex.resources import ClosedTask, Definition
from agentex.runs.claims import Claimed
from agentex.runs.models import RunReason, RunStatus
from agentex.tasks.models import TaskStatus
from agentex.telemetry.metrics import LATENESS_SECONDS, RUN_RETRIES, RUNS_ENDED

MAX_BACKOFF_SECONDS = 60.0
# A run's error is a sentence or two; an agent's own words are cut at this.
MAX_ERROR_LENGTH = 1_000

# What a task's terminal status means for its run (design.md §5).
TASK_ENDS: dict[TaskStatus, RunStatus] = {
    TaskStatus.COMPLETED: RunStatus.SUCCEEDED,
    TaskStatus.FAILED: RunStatus.FAILED,
    TaskStatus.CANCELED: RunStatus.CANCELED,
    TaskStatus.TERMINATED: RunStatus.CANCELED,
    TaskStatus.DELETED: RunStatus.CANCELED,
    TaskStatus.TIMED_OUT: RunStatus.TIMED_OUT,
}

_TERMINAL = frozenset(
    {
        RunStatus.DELIVERED,
        RunStatus.SUCCEEDED,
        RunStatus.FAILED,
        RunStatus.CANCELED,
        RunStatus.TIMED_OUT,
        RunStatus.SKIPPED,
    }
)


@dataclass(frozen=True)
class Outcome:
    """What a launch made of one run, to be written under the launch's token."""

    run_id: UUID
    token: UUID
    status: RunStatus
    reason: RunReason | None = None
    error: str | None = None
    output: list[JsonObject] | None = None
    delivered: bool = False
    # For status due: how long to wait before the next attempt.
    retry_in_seconds: float | None = None


def outcome_of_success(
    run: Claimed, token: UUID, definition: Definition, output: list[JsonObject] | None
) -> Outcome:
    """The end of a sending that went well: an answer, or a delivery that is followed or not."""
    if output is not None:
        return Outcome(run.id, token, RunStatus.SUCCEEDED, output=storable(output), delivered=True)
    status = RunStatus.RUNNING if definition.finishes_on_task else RunStatus.DELIVERED
    return Outcome(run.id, token, status, delivered=True)


@dataclass(frozen=True)
class Failed:
    """A request that did not go well, and what is known of it."""

    failure: AgentCallFailed
    # Whether the executor may repeat after the agent's own server error (acknowledged before it works).
    repeats_agent_error: bool
    partial: list[JsonObject] | None = None
    # What health checks had said of the agent when the attempt began; None where they had nothing to say.
    health: str | None = None

    @property
    def error(self) -> str:
        """What the run says of it; the health stands behind, and is kept where the whole is too long."""
        behind = f" (the agent is Unhealthy: {self.health})" if self.health else ""
        return self.failure.message[: MAX_ERROR_LENGTH - len(behind)] + behind


def outcome_of_failure(run: Claimed, token: UUID, definition: Definition, failed: Failed) -> Outcome:
    """design.md §4, the table "What is sent again": the only place that decides it."""
    failure, error = failed.failure, failed.error
    again, reason = False, RunReason.AGENT_ERROR
    if isinstance(failure, AgentUnreachable):
        again, reason = True, RunReason.AGENT_UNREACHABLE
    elif isinstance(failure, AgentError):
        again = failed.repeats_agent_error
    elif isinstance(failure, AgentProtocolError):
        reason = RunReason.AGENT_PROTOCOL
    elif isinstance(failure, OutcomeUnknown):
        again, reason = definition.resend_unknown, RunReason.OUTCOME_UNKNOWN
    wait = _backoff_seconds(run, failure)
    if again and _waited_seconds(run) + wait < definition.retry_window_seconds:
        # Told, not written: a task that has spoken after an unknown outcome needs no other attempt.
        return Outcome(run.id, token, RunStatus.DUE, reason, error, retry_in_seconds=wait)
    return Outcome(run.id, token, RunStatus.FAILED, reason, error, storable(failed.partial))


def outcome_of_skip(run: Claimed, token: UUID, reason: RunReason, error: str | None = None) -> Outcome:
    """A run that was opened and then found not to be wanted or not allowed."""
    return Outcome(run.id, token, RunStatus.SKIPPED, reason, error)


@dataclass(frozen=True)
class Recorded:
    """Whether the run was still its launch's own, and whether somebody has meanwhile asked to cancel it."""

    mine: bool
    cancel_requested: bool = False


def outcome_of_wait(run: Claimed, token: UUID, definition: Definition, error: str) -> Outcome:
    """A run that something of ours keeps from being sent for now: again until its retry window ends."""
    wait = _doubled_seconds(run)
    if _waited_seconds(run) + wait < definition.retry_window_seconds:
        return Outcome(run.id, token, RunStatus.DUE, RunReason.OURS, error, retry_in_seconds=wait)
    return Outcome(run.id, token, RunStatus.FAILED, RunReason.OURS, error)


async def record(session: AsyncSession, outcomes: Sequence[Outcome]) -> dict[UUID, Recorded]:
    """Write outcomes set-based, with the messages of answers; returns those that were written.

    A run that its task's end or a lost claim has meanwhile decided stays as that left it.
    """
    found = await rows(
        session,
        _RECORD_SQL,
        outcomes=json.dumps([_as_json(outcome) for outcome in outcomes]),
    )
    skipped = [row["schedule_id"] for row in found if row["status"] == "skipped" and row["schedule_id"]]
    if skipped:
        await _uncount(session, skipped)
    for row in found:
        _measure(session, row)
    outputs = {outcome.run_id: outcome.output for outcome in outcomes}
    await ensure_messages(
        session,
        [
            NewMessage(run_message_id(row["id"], place), row["account_id"], row["task_id"], content, place)
            for row in found
            if row["task_id"] is not None
            for place, content in enumerate(outputs[row["id"]] or [], start=1)
        ],
    )
    return {row["id"]: Recorded(True, row["cancel_requested"]) for row in found}


async def end_for_task(session: AsyncSession, closed: ClosedTask) -> None:
    """End the run of a task that has just been closed, in the transaction that closes it."""
    status = TASK_ENDS[TaskStatus(closed.status)]
    ended = await rows(
        session,
        """
        UPDATE runs SET status = CAST(:status AS text), reason = :reason,
            error = CASE WHEN CAST(:status AS text) = 'failed'
                THEN coalesce(CAST(:error AS text), 'the agent failed the task') END,
            delivered_at = CASE WHEN sending_at IS NULL THEN delivered_at
                ELSE coalesce(delivered_at, clock_timestamp()) END,
            finished_at = clock_timestamp(), updated_at = clock_timestamp(), next_attempt_at = NULL
        WHERE task_id = :task_id AND (
            status IN ('launching', 'delivered', 'running', 'waiting_for_input', 'due')
            OR (status = 'failed' AND reason = 'outcome_unknown'))
        -- One that is claimed still: its delivery was not recorded, and will not be.
        RETURNING status, reason, lane, CASE WHEN claimed_by IS NOT NULL AND sending_at IS NOT NULL
            THEN extract(epoch FROM delivered_at - due_at)::float8 END AS lateness
        """,
        task_id=closed.task_id,
        status=status,
        reason=RunReason.AGENT_ERROR if status is RunStatus.FAILED else None,
        error=closed.reason,
    )
    for row in ended:
        _measure(session, row)


async def prove_alive(session: AsyncSession, task_id: UUID) -> None:
    """A task that speaks got its input: outcome_unknown becomes delivered, also if it is found only later.

    Not where the input was never sent: then the agent speaks of the task alone, whose opening was unknown.
    Or running, where its task's end is followed; one that is closed has ended its run before.
    """
    await rows(
        session,
        f"WITH spoken AS (SELECT CAST(:task_id AS uuid) AS task_id) {PROVE_ALIVE_SQL}",
        task_id=task_id,
    )


# Of the task in spoken; a subquery for a value, so that Postgres looks into the index of task_id whatever it
# guesses of spoken.
PROVE_ALIVE_SQL = """
    UPDATE runs SET
        status = CASE WHEN status <> 'failed' THEN status
            WHEN finishes_on_task AND lane = 'deliver' THEN 'running' ELSE 'delivered' END,
        finished_at = CASE WHEN finishes_on_task AND lane = 'deliver' THEN NULL ELSE finished_at END,
        reason = NULL, error = NULL,
        delivered_at = coalesce(delivered_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE task_id = (SELECT task_id FROM spoken LIMIT 1) AND (
        (status = 'failed' AND reason = 'outcome_unknown' AND sending_at IS NOT NULL)
        OR (status = 'launching' AND sending_at IS NOT NULL AND delivered_at IS NULL
            AND lane = 'deliver'))
"""


async def mark_running(session: AsyncSession, run_id: UUID, token: UUID) -> None:
    """The agent has begun its answer, and the answer is still open."""
    await rows(
        session,
        """
        UPDATE runs SET status = 'running', delivered_at = coalesce(delivered_at, clock_timestamp()),
            updated_at = clock_timestamp()
        WHERE id = :run_id AND claimed_by = :token AND status = 'launching'
        """,
        run_id=run_id,
        token=token,
    )


async def _uncount(session: AsyncSession, schedule_ids: Sequence[UUID]) -> None:
    # num_actions_taken counts runs that were not skipped; these were counted when they were opened.
    await rows(
        session,
        """
        WITH skipped AS (
            SELECT id, count(*) AS n FROM unnest(CAST(:ids AS uuid[])) AS i (id) GROUP BY id
        ), locked AS (
            SELECT t.schedule_id, s.n FROM schedule_totals t JOIN skipped s ON s.id = t.schedule_id
            ORDER BY t.schedule_id FOR NO KEY UPDATE OF t
        )
        UPDATE schedule_totals t SET opened = t.opened - l.n FROM locked l
        WHERE t.schedule_id = l.schedule_id
        """,
        ids=list(schedule_ids),
    )


_RECORD_SQL = """
    WITH outcomes AS (
        SELECT * FROM jsonb_to_recordset(CAST(:outcomes AS jsonb)) AS o (
            run_id uuid, token uuid, status text, reason text, error text, output jsonb, delivered boolean,
            terminal boolean, retry_in float8)
    ), mine AS (
        SELECT r.id AS mine_id, o.*,
            -- The task has spoken meanwhile, which proves that the input arrived.
            o.reason = 'outcome_unknown' AND r.delivered_at IS NOT NULL AND r.lane = 'deliver' AS alive
        FROM runs r JOIN outcomes o ON o.run_id = r.id AND o.token = r.claimed_by
        WHERE r.status IN ('launching', 'running')
        ORDER BY r.id FOR NO KEY UPDATE OF r
    )
    UPDATE runs r SET
        status = CASE WHEN m.alive AND r.finishes_on_task THEN 'running' WHEN m.alive THEN 'delivered'
            ELSE m.status END,
        reason = CASE WHEN m.alive OR m.status = 'due' THEN NULL ELSE m.reason END,
        error = CASE WHEN m.alive THEN NULL ELSE m.error END, output = m.output,
        delivered_at = CASE WHEN m.delivered THEN coalesce(r.delivered_at, clock_timestamp())
            ELSE r.delivered_at END,
        finished_at = CASE WHEN CASE WHEN m.alive THEN NOT r.finishes_on_task ELSE m.terminal END
            THEN clock_timestamp() END,
        next_attempt_at = CASE WHEN m.retry_in IS NOT NULL AND m.alive IS NOT TRUE
            THEN clock_timestamp() + make_interval(secs => m.retry_in) END,
        sending_at = CASE WHEN m.status IN ('due', 'skipped') AND m.alive IS NOT TRUE THEN NULL
            ELSE r.sending_at END,
        claimed_by = NULL, claimed_until = NULL, updated_at = clock_timestamp()
    FROM mine m WHERE r.id = m.mine_id
    RETURNING r.id, r.account_id, r.schedule_id, r.task_id, r.status, r.reason, r.lane, m.reason AS told,
        r.cancel_requested_at IS NOT NULL AS cancel_requested,
        CASE WHEN m.delivered THEN extract(epoch FROM r.delivered_at - r.due_at)::float8 END AS lateness
"""


def _as_json(outcome: Outcome) -> JsonObject:
    return {
        "run_id": str(outcome.run_id),
        "token": str(outcome.token),
        "status": outcome.status,
        "reason": outcome.reason,
        "error": storable(outcome.error),
        "output": outcome.output,
        "delivered": outcome.delivered,
        "terminal": outcome.status in _TERMINAL,
        "retry_in": outcome.retry_in_seconds,
    }


def _waited_seconds(run: Claimed) -> float:
    return (datetime.now(UTC) - run.launched_at).total_seconds()


def _backoff_seconds(run: Claimed, failure: AgentCallFailed) -> float:
    asked = failure.retry_after_seconds if isinstance(failure, AgentUnreachable) else None
    return max(_doubled_seconds(run), asked or 0.0)


def _doubled_seconds(run: Claimed) -> float:
    # The exponent is bounded too: a day's retries are 1,440, and 2.0 ** 1024 overflows.
    return min(2.0 ** min(run.attempt - 1, 10), MAX_BACKOFF_SECONDS)


def _measure(session: AsyncSession, row: RowMapping) -> None:
    """Count, once it is committed, what a run has become, and how late it was where that is known now."""
    status = row["status"]
    if status == RunStatus.DUE:
        why = "ours" if row["told"] in (None, RunReason.OURS) else "agent"
        after_commit(session, RUN_RETRIES.labels(why=why).inc)
    elif status in _TERMINAL:
        after_commit(session, RUNS_ENDED.labels(status=status, reason=row["reason"] or "").inc)
    if row["lateness"] is not None:
        after_commit(session, partial(LATENESS_SECONDS.labels(lane=row["lane"]).observe, row["lateness"]))
