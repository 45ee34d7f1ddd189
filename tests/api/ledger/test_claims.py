"""Claims: who may launch what, what expires, and what a run is judged to be when its launch gets to it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from agentex.agents.models import Agent
from agentex.executors.base import Lane
from agentex.ids import fire_id
from agentex.resources import Resources
from agentex.runs.claims import (
    Claimed,
    Held,
    claim_page,
    read_held,
    release,
    renew,
    seconds_to_next_attempt,
    settle_expired,
)
from agentex.runs.dispatch import Dispatch, Mark, Marked
from agentex.runs.models import Run, RunCause, RunReason, RunStatus
from agentex.runs.pages import PageRef
from tests.api.ledger.stage import add_run, fetch, minutes, read_run, seconds

PAGE = PageRef(UUID("01930000-0000-7000-8000-0000000000aa"), Lane.DELIVER, 0)
TOKEN = UUID("01930000-0000-7000-8000-0000000000bb")
OTHER = UUID("01930000-0000-7000-8000-0000000000cc")
SCHEDULE = UUID("01930000-0000-7000-8000-0000000000dd")


async def in_page(
    resources: Resources, agent: Agent, status: RunStatus = RunStatus.DUE, **columns: Any
) -> Run:
    place = {"batch_id": PAGE.batch_id, "lane": PAGE.lane, "page": PAGE.page}
    return await add_run(resources, agent, status, **(place | columns))


async def owed(resources: Resources, agent: Agent, late: timedelta, **columns: Any) -> Run:
    """A run of SCHEDULE's cadence that was due so long ago."""
    due_at = datetime.now(UTC).replace(microsecond=0) - late
    given: dict[str, Any] = {
        "schedule_id": SCHEDULE,
        "schedule_version": 1,
        "cause": RunCause.CADENCE,
        "fire_id": fire_id(due_at),
        "due_at": due_at,
        "next_attempt_at": due_at,
    }
    return await in_page(resources, agent, **(given | columns))


async def claim(resources: Resources, token: UUID = TOKEN) -> list[Claimed]:
    async with resources.db.begin() as session:
        return await claim_page(session, resources.settings, PAGE, token)


async def state(resources: Resources, run: Run) -> tuple[Any, ...]:
    row = await read_run(resources, run.id)
    return (row.status, row.reason, row.attempt, row.claimed_by)


async def test_a_claim_takes_what_is_due_of_its_page_and_nothing_else(
    resources: Resources, agent: Agent
) -> None:
    mine = await in_page(resources, agent)
    await in_page(resources, agent, page=1)
    await in_page(resources, agent, lane=Lane.ANSWER)
    await in_page(resources, agent, batch_id=OTHER)
    await in_page(resources, agent, next_attempt_at=datetime.now(UTC) + minutes(1))
    await in_page(resources, agent, RunStatus.CANCELED)
    claimed = await claim(resources)
    assert [(run.id, run.attempt, run.missed, run.task_created) for run in claimed] == [
        (mine.id, 1, False, False)
    ]
    assert await state(resources, mine) == (RunStatus.LAUNCHING, None, 1, TOKEN)
    row = await read_run(resources, mine.id)
    assert row.claimed_until is not None
    assert row.launched_at is not None
    # Two readings of one clock, microseconds apart.
    claimed_for = (row.claimed_until - row.launched_at).total_seconds()
    assert claimed_for == pytest.approx(resources.settings.claim_seconds, abs=1)


async def test_two_claims_at_once_share_nothing(resources: Resources, agent: Agent) -> None:
    for _ in range(40):
        await in_page(resources, agent)
    found = await asyncio.gather(claim(resources, TOKEN), claim(resources, OTHER))
    ids = [run.id for claimed in found for run in claimed]
    assert (len(ids), len(set(ids))) == (40, 40)


async def test_a_run_keeps_the_moment_of_its_first_launch(resources: Resources, agent: Agent) -> None:
    first = datetime.now(UTC) - minutes(5)
    run = await in_page(resources, agent, launched_at=first, attempt=3)
    claimed = await claim(resources)
    assert [(one.id, one.launched_at, one.attempt) for one in claimed] == [(run.id, first, 4)]


@pytest.mark.parametrize(
    ("late", "columns", "expected"),
    [
        (seconds(5), {}, (RunCause.CADENCE, False)),
        (seconds(60), {}, (RunCause.CATCH_UP, False)),
        (minutes(59), {}, (RunCause.CATCH_UP, False)),
        (minutes(61), {}, (RunCause.CATCH_UP, True)),
        (minutes(61), {"cause": RunCause.CATCH_UP}, (RunCause.CATCH_UP, True)),
        (minutes(61), {"cause": RunCause.MANUAL}, (RunCause.MANUAL, False)),
        (minutes(61), {"attempt": 1}, (RunCause.CADENCE, False)),
    ],
    ids=["on-time", "late", "almost-an-hour", "over-an-hour", "catch-up", "manual", "tried-before"],
)
async def test_a_run_is_judged_again_when_its_launch_gets_to_it(
    resources: Resources,
    agent: Agent,
    late: timedelta,
    columns: dict[str, Any],
    expected: tuple[RunCause, bool],
) -> None:
    run = await owed(resources, agent, late, **columns)
    claimed = await claim(resources)
    assert [(one.cause, one.missed) for one in claimed] == [expected]
    assert (await read_run(resources, run.id)).cause == expected[0]


async def test_of_many_late_runs_only_the_newest_is_not_missed(resources: Resources, agent: Agent) -> None:
    made = [await owed(resources, agent, minutes(late)) for late in (40, 30, 20, 10)]
    claimed = {run.id: run.missed for run in await claim(resources)}
    assert [claimed[run.id] for run in made] == [True, True, True, False]


async def test_a_newer_run_in_another_page_makes_the_late_one_missed(
    resources: Resources, agent: Agent
) -> None:
    await owed(resources, agent, minutes(10))
    await owed(resources, agent, seconds(1), batch_id=OTHER)
    assert [run.missed for run in await claim(resources)] == [True]


@pytest.mark.parametrize(
    "newer",
    [
        {"status": RunStatus.SKIPPED, "reason": RunReason.PAUSED},
        {"cause": RunCause.MANUAL},
        {"schedule_id": OTHER},
    ],
    ids=["skipped", "manual", "of-another-schedule"],
)
async def test_what_is_no_newer_delivery_makes_no_run_missed(
    resources: Resources, agent: Agent, newer: dict[str, Any]
) -> None:
    await owed(resources, agent, minutes(10))
    await owed(resources, agent, seconds(1), **({"batch_id": OTHER, "status": RunStatus.DUE} | newer))
    assert [run.missed for run in await claim(resources)] == [False]


async def test_a_stagger_does_not_make_a_run_late(resources: Resources, agent: Agent) -> None:
    await owed(resources, agent, minutes(50), next_attempt_at=datetime.now(UTC) - seconds(1))
    assert [(run.cause, run.missed) for run in await claim(resources)] == [(RunCause.CADENCE, False)]


async def test_the_hour_of_the_catch_up_counts_from_where_the_stagger_puts_a_run(
    resources: Resources, agent: Agent
) -> None:
    recent, old = datetime.now(UTC) - seconds(35), datetime.now(UTC) - minutes(61)
    await owed(resources, agent, minutes(61), next_attempt_at=recent)
    other = await owed(resources, agent, minutes(120), schedule_id=OTHER, next_attempt_at=old)
    claimed = {run.id: (run.cause, run.missed) for run in await claim(resources)}
    assert claimed.pop(other.id) == (RunCause.CATCH_UP, True)
    assert list(claimed.values()) == [(RunCause.CATCH_UP, False)]


@pytest.mark.parametrize("status", [RunStatus.LAUNCHING, RunStatus.RUNNING])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, (RunStatus.DUE, None, 0, None)),
        ({"sending_at": datetime.now(UTC)}, (RunStatus.FAILED, RunReason.OUTCOME_UNKNOWN, 1, None)),
        ({"sending_at": datetime.now(UTC), "resend_unknown": True}, (RunStatus.DUE, None, 1, None)),
    ],
    ids=["not-sent", "sent", "sent-and-resent"],
)
async def test_an_expired_claim_is_settled_by_what_was_sent(
    resources: Resources,
    agent: Agent,
    status: RunStatus,
    columns: dict[str, Any],
    expected: tuple[Any, ...],
) -> None:
    expired = {"claimed_by": OTHER, "claimed_until": datetime.now(UTC) - seconds(1), "attempt": 1}
    run = await in_page(resources, agent, status, **(expired | columns))
    async with resources.db.begin() as session:
        assert await settle_expired(session) == 1
    assert await state(resources, run) == expected
    row = await read_run(resources, run.id)
    assert (row.finished_at is not None, row.sending_at is not None, row.error) == (
        (True, True, "the worker stopped while this run was being sent")
        if expected[0] is RunStatus.FAILED
        else (False, False, None)
    )


async def test_a_claim_that_still_holds_is_nobody_else_s(resources: Resources, agent: Agent) -> None:
    held = {"claimed_by": OTHER, "claimed_until": datetime.now(UTC) + minutes(1), "attempt": 1}
    run = await in_page(resources, agent, RunStatus.LAUNCHING, **held)
    async with resources.db.begin() as session:
        assert await settle_expired(session) == 0
    assert (await claim(resources), await state(resources, run)) == (
        [],
        (RunStatus.LAUNCHING, None, 1, OTHER),
    )


async def test_a_page_takes_over_its_own_expired_claims_and_leaves_other_pages_theirs(
    resources: Resources, agent: Agent
) -> None:
    expired = {"claimed_by": OTHER, "claimed_until": datetime.now(UTC) - seconds(1), "attempt": 1}
    run = await in_page(resources, agent, RunStatus.LAUNCHING, **expired)
    other = await in_page(resources, agent, RunStatus.LAUNCHING, **(expired | {"page": 1}))
    claimed = await claim(resources)
    assert [(one.id, one.attempt) for one in claimed] == [(run.id, 1)]
    assert await state(resources, other) == (RunStatus.LAUNCHING, None, 1, OTHER)


async def test_release_undoes_a_claim_of_what_was_not_sent(resources: Resources, agent: Agent) -> None:
    unsent, sent = await in_page(resources, agent), await in_page(resources, agent)
    await claim(resources)
    await fetch(resources, "UPDATE runs SET sending_at = now() WHERE id = :id", id=sent.id)
    async with resources.db.begin() as session:
        await release(session, OTHER, [unsent.id, sent.id])
    assert await state(resources, unsent) == (RunStatus.LAUNCHING, None, 1, TOKEN)
    async with resources.db.begin() as session:
        await release(session, TOKEN, [unsent.id, sent.id])
    assert [await state(resources, run) for run in (unsent, sent)] == [
        (RunStatus.DUE, None, 0, None),
        (RunStatus.LAUNCHING, None, 1, TOKEN),
    ]


async def test_renew_extends_only_what_is_held(resources: Resources, agent: Agent) -> None:
    soon, past = datetime.now(UTC) + seconds(20), datetime.now(UTC) - seconds(1)
    mine = await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=TOKEN, claimed_until=soon)
    # Expired and settled by nobody, as after an outage of Postgres: still the launch's own.
    expired = await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=TOKEN, claimed_until=past)
    theirs = await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=OTHER, claimed_until=soon)
    async with resources.db.begin() as session:
        await renew(session, resources.settings, TOKEN, [mine.id, expired.id, theirs.id])
    until = [(await read_run(resources, run.id)).claimed_until for run in (mine, expired, theirs)]
    assert [instant is not None and instant > soon + seconds(20) for instant in until] == [True, True, False]
    assert until[2] == soon


async def test_held_are_the_runs_under_the_token_and_which_of_them_are_to_be_canceled(
    resources: Resources, agent: Agent
) -> None:
    until, past = datetime.now(UTC) + minutes(1), datetime.now(UTC) - seconds(1)
    mine = {"claimed_by": TOKEN, "claimed_until": until}
    launching = await in_page(resources, agent, RunStatus.LAUNCHING, **mine)
    unasked = await in_page(resources, agent, RunStatus.LAUNCHING, **mine)
    running = await in_page(resources, agent, RunStatus.RUNNING, cancel_requested_at=past, **mine)
    await in_page(resources, agent, RunStatus.CANCELED, **mine)
    expired = await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=TOKEN, claimed_until=past)
    await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=OTHER, claimed_until=until)
    async with resources.db.read() as session:
        ids = [row["id"] for row in await fetch(resources, "SELECT id FROM runs") if row["id"] != unasked.id]
        assert await read_held(session, TOKEN, ids) == Held(
            frozenset({launching.id, running.id, expired.id}), frozenset({running.id})
        )


async def wait(resources: Resources) -> float | None:
    async with resources.db.read() as session:
        return await seconds_to_next_attempt(session, PAGE)


async def test_when_a_page_has_work_again(resources: Resources, agent: Agent) -> None:
    await in_page(resources, agent, RunStatus.DELIVERED)
    nothing_left = await wait(resources)
    await in_page(resources, agent, next_attempt_at=datetime.now(UTC) + minutes(10))
    in_ten_minutes = await wait(resources)
    await in_page(resources, agent, next_attempt_at=datetime.now(UTC) - minutes(10))
    assert (nothing_left, await wait(resources)) == (None, 0)
    assert in_ten_minutes is not None
    assert 300 < in_ten_minutes <= 600


async def test_a_page_looks_again_when_another_process_s_claim_expires(
    resources: Resources, agent: Agent
) -> None:
    held = {"claimed_by": OTHER, "claimed_until": datetime.now(UTC) + minutes(10)}
    await in_page(resources, agent, RunStatus.LAUNCHING, **held)
    seconds_left = await wait(resources)
    assert seconds_left is not None
    assert 300 < seconds_left <= 600


@pytest.mark.parametrize(("attempt", "sent", "kept"), [(1, False, False), (2, False, True), (1, True, True)])
async def test_the_retry_window_counts_from_the_first_launch_that_got_as_far_as_sending(
    resources: Resources, agent: Agent, attempt: int, sent: bool, kept: bool
) -> None:
    past = datetime.now(UTC) - seconds(1)
    run = await in_page(
        resources,
        agent,
        RunStatus.LAUNCHING,
        claimed_by=OTHER,
        claimed_until=past,
        attempt=attempt,
        launched_at=past,
        sending_at=past if sent else None,
    )
    async with resources.db.begin() as session:
        await settle_expired(session)
    assert (await read_run(resources, run.id)).launched_at == (past if kept else None)


async def test_a_mark_is_refused_for_what_is_lost_expired_or_canceled(
    resources: Resources, agent: Agent
) -> None:
    until, past = datetime.now(UTC) + minutes(1), datetime.now(UTC) - seconds(1)
    made = {
        "mine": await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=TOKEN, claimed_until=until),
        "theirs": await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=OTHER, claimed_until=until),
        "expired": await in_page(resources, agent, RunStatus.LAUNCHING, claimed_by=TOKEN, claimed_until=past),
        "ended": await in_page(resources, agent, RunStatus.CANCELED, claimed_by=TOKEN, claimed_until=until),
        "to be canceled": await in_page(
            resources,
            agent,
            RunStatus.LAUNCHING,
            claimed_by=TOKEN,
            claimed_until=until,
            cancel_requested_at=past,
        ),
    }
    dispatch = Dispatch(resources)
    marked = await asyncio.gather(
        *[dispatch.marks.submit(Mark(run.id, TOKEN, task_created=True)) for run in made.values()]
    )
    assert dict(zip(made, marked, strict=True)) == {
        "mine": Marked.YES,
        "theirs": Marked.LOST,
        "expired": Marked.LOST,
        "ended": Marked.LOST,
        "to be canceled": Marked.CANCELED,
    }
    sending = {name: (await read_run(resources, run.id)).sending_at is not None for name, run in made.items()}
    assert sending == {name: name == "mine" for name in made}


@pytest.mark.parametrize("task_created", [True, False])
async def test_a_mark_notes_whether_the_agent_knows_the_task(
    resources: Resources, agent: Agent, task_created: bool
) -> None:
    held = {"claimed_by": TOKEN, "claimed_until": datetime.now(UTC) + minutes(1)}
    run = await in_page(resources, agent, RunStatus.LAUNCHING, **held)
    await Dispatch(resources).marks.submit(Mark(run.id, TOKEN, task_created))
    assert ((await read_run(resources, run.id)).task_created_at is not None) is task_created


async def test_a_claim_leaves_what_its_launch_is_still_at_work_on(resources: Resources, agent: Agent) -> None:
    """Its claims may have expired, or been settled, while the process or Postgres was stopped."""
    past = datetime.now(UTC) - minutes(1)
    settled = await in_page(resources, agent, next_attempt_at=past)
    other = await in_page(resources, agent, next_attempt_at=past)
    held = {"claimed_by": TOKEN, "claimed_until": past, "next_attempt_at": past}
    expired = await in_page(resources, agent, RunStatus.LAUNCHING, **held)
    async with resources.db.begin() as session:
        claimed = await claim_page(session, resources.settings, PAGE, TOKEN, leave=[settled.id, expired.id])
    after = [(await read_run(resources, run.id)).status for run in (settled, expired)]
    assert ([run.id for run in claimed], after) == ([other.id], [RunStatus.DUE, RunStatus.LAUNCHING])
