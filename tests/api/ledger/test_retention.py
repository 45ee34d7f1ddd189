"""Retention: what goes, what stays, and that nothing waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from agentex.agents.models import Agent
from agentex.database import rows
from agentex.errors import NotFound
from agentex.events.models import Event
from agentex.ids import first_id_of, new_id, run_task_id
from agentex.messages.models import Message
from agentex.resources import Resources, open_resources
from agentex.runs import retention
from agentex.runs.models import UNFINISHED_STATUSES, Run, RunReason, RunStatus
from agentex.runs.retention import LOCK_RUNS_SQL, forget_old_runs
from agentex.schedules.models import Schedule
from agentex.sweep.sweep import Sweep
from agentex.tasks.models import Task, TaskStatus
from agentex.tasks.service import close
from tests.api.ledger.stage import (
    CALLER,
    Attached,
    add_run,
    add_schedule,
    add_task,
    fetch,
    ledger,
    nobody_sweeps,
    open_all,
    seconds,
)
from tests.support.plans import explain
from tests.support.postgres import PostgresServer

DAYS = 90
TEXT = {"type": "text", "author": "agent", "content": "hi"}
# What a run, its task, its event and its message count as.
ALL = {"runs": 1, "tasks": 1, "events": 1, "messages": 1}
NONE = dict.fromkeys(ALL, 0)


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


OLD, YOUNG = DAYS + 1, DAYS - 1


def id_of(days: float) -> UUID:
    """An id as one that was made so many days ago has it."""
    return UUID(int=first_id_of(ago(days)).int | uuid4().int >> 80)


async def old_run(
    resources: Resources, agent: Agent, status: RunStatus = RunStatus.DELIVERED, **columns: Any
) -> Run:
    """A run that was opened and finished a day before the retention's days."""
    at = ago(OLD)
    given = {"id": id_of(OLD), "due_at": at, "opened_at": at, "updated_at": at, "next_attempt_at": None}
    return await add_run(resources, agent, status, **(given | {"finished_at": at} | columns))


async def converse(resources: Resources, run: Run, *, task_id: UUID | None = None, days: float = OLD) -> UUID:
    """The run's task (the one that it makes, unless given), with an event and a message of that age."""
    at, id_ = ago(days), task_id or run_task_id(run.id)
    same: dict[str, Any] = {"account_id": run.account_id, "created_at": at}
    async with resources.db.begin() as session:
        session.add(
            Task(**same, id=id_, owner=CALLER.creator, agent_id=run.agent_id, name=str(id_), updated_at=at)
        )
        await session.flush()
        session.add(
            Event(**same, task_id=id_, agent_id=run.agent_id, delivery_key=f"run:{run.id}", content=TEXT)
        )
        session.add(Message(**same, task_id=id_, content=TEXT, updated_at=at))
    await fetch(resources, "UPDATE runs SET task_id = :task WHERE id = :id", task=id_, id=run.id)
    return id_


async def counts(resources: Resources) -> dict[str, int]:
    """How many rows each table has."""
    found = await fetch(
        resources,
        """SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM tasks) AS tasks,
            (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM messages) AS messages""",
    )
    return dict(found[0])


async def run_ids(resources: Resources) -> set[UUID]:
    return {row["id"] for row in await fetch(resources, "SELECT id FROM runs")}


def forgotten() -> float:
    return REGISTRY.get_sample_value("agentex_runs_forgotten_total") or 0


async def test_an_old_run_goes_with_what_it_made_and_nothing_else_does(
    resources: Resources, agent: Agent
) -> None:
    before = forgotten()
    await converse(resources, await old_run(resources, agent))
    young = await add_run(resources, agent, RunStatus.DELIVERED, finished_at=ago(0))
    await converse(resources, young)
    # Nobody's run, as old, and a conversation like any other.
    await add_task(resources, agent)
    await fetch(resources, "UPDATE tasks SET created_at = :at, updated_at = :at", at=ago(OLD))
    assert await forget_old_runs(resources) is False
    assert await counts(resources) == {"runs": 1, "tasks": 2, "events": 1, "messages": 1}
    assert (await run_ids(resources), forgotten() - before) == ({young.id}, 1)


async def test_the_totals_of_a_schedule_stay(resources: Resources, agent: Agent) -> None:
    schedule_id, at = new_id(), ago(OLD)
    await fetch(resources, "INSERT INTO schedule_totals VALUES (:id, 41, :at)", id=schedule_id, at=at)
    await old_run(resources, agent, schedule_id=schedule_id)
    await forget_old_runs(resources)
    assert await run_ids(resources) == set()
    assert [tuple(row.values()) for row in await fetch(resources, "SELECT * FROM schedule_totals")] == [
        (schedule_id, 41, at)
    ]


@pytest.mark.parametrize("status", [status for status in RunStatus if status not in UNFINISHED_STATUSES])
async def test_however_it_ended(resources: Resources, agent: Agent, status: RunStatus) -> None:
    await converse(resources, await old_run(resources, agent, status, reason=RunReason.OURS))
    await forget_old_runs(resources)
    assert await counts(resources) == NONE


@pytest.mark.parametrize("status", sorted(UNFINISHED_STATUSES))
async def test_an_unfinished_run_never_goes(resources: Resources, agent: Agent, status: RunStatus) -> None:
    await converse(resources, await old_run(resources, agent, status, finished_at=None))
    await forget_old_runs(resources)
    assert await counts(resources) == ALL


@pytest.mark.parametrize("column", ["finished_at", "due_at"])
async def test_both_the_instant_and_the_end_must_be_old(
    resources: Resources, agent: Agent, column: str
) -> None:
    await converse(resources, await old_run(resources, agent, RunStatus.DELIVERED, **{column: ago(YOUNG)}))
    await forget_old_runs(resources)
    assert await counts(resources) == ALL


@pytest.mark.parametrize("days", [0, 1, OLD + 1])
async def test_the_setting_says_how_long(resources: Resources, agent: Agent, days: int) -> None:
    await converse(resources, await old_run(resources, agent))
    settings = resources.settings.model_copy(update={"run_retention_days": days})
    async with open_resources(settings) as other:
        assert await forget_old_runs(other) is False
    assert await counts(resources) == (NONE if days == 1 else ALL)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE tasks SET updated_at = :at, status = 'COMPLETED'",
        "UPDATE events SET created_at = :at",
        "UPDATE messages SET updated_at = :at",
        """INSERT INTO states (id, account_id, task_id, agent_id, state, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, id, agent_id, '{}', created_at, :at FROM tasks""",
    ],
    ids=["closed", "event", "message", "state"],
)
@pytest.mark.parametrize("days", [YOUNG, OLD])
async def test_a_task_in_which_something_happened_since_keeps_its_run(
    resources: Resources, agent: Agent, sql: str, days: float
) -> None:
    await converse(resources, await old_run(resources, agent))
    await fetch(resources, sql, at=ago(days))
    await forget_old_runs(resources)
    assert await counts(resources) == (ALL if days == YOUNG else NONE)
    states = await fetch(resources, "SELECT 1 FROM states")
    assert len(states) == ("INTO states" in sql and days == YOUNG)


async def test_runs_that_are_kept_stand_in_nobody_s_way(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FORGET_AT_ONCE", 1)
    kept = await old_run(resources, agent, id=id_of(OLD + 1))
    await converse(resources, kept, days=YOUNG)
    await old_run(resources, agent)
    await forget_old_runs(resources)
    assert await run_ids(resources) == {kept.id}


async def test_an_open_task_that_has_long_been_silent_goes(resources: Resources, agent: Agent) -> None:
    await converse(resources, await old_run(resources, agent))
    await fetch(resources, "UPDATE tasks SET status = 'INTERRUPTED'")
    await forget_old_runs(resources)
    assert await counts(resources) == NONE


async def test_a_task_that_the_run_did_not_make_stays(resources: Resources, agent: Agent) -> None:
    await converse(resources, await old_run(resources, agent), task_id=new_id())
    await forget_old_runs(resources)
    assert await counts(resources) == ALL | {"runs": 0}


async def test_a_task_that_another_run_uses_stays(resources: Resources, agent: Agent) -> None:
    task_id = await converse(resources, await old_run(resources, agent))
    other = await add_run(resources, agent, RunStatus.RUNNING, task_id=task_id)
    await forget_old_runs(resources)
    assert (await counts(resources), await run_ids(resources)) == (ALL, {other.id})


async def scheduled(resources: Resources, agent: Agent, next_due_at: datetime, **more: Any) -> Schedule:
    """A schedule with an old run of an old instant; its clock stands where it is told."""
    attached = Attached(active_from=ago(OLD + 2), next_due_at=next_due_at, **more)
    schedule = await add_schedule(resources, agent, attached)
    at = ago(OLD).replace(second=0, microsecond=0)
    await old_run(resources, agent, schedule_id=schedule.id, due_at=at)
    return schedule


async def test_an_instant_that_its_clock_has_passed_goes(resources: Resources, agent: Agent) -> None:
    schedule = await scheduled(resources, agent, ago(0))
    await forget_old_runs(resources)
    assert await ledger(resources, schedule.id) == []


@pytest.mark.parametrize(
    ("next_due_at", "checked"), [(OLD, True), (OLD + 1, True), (0, False)], ids=["on", "behind", "unchecked"]
)
async def test_an_instant_that_might_be_opened_again_stays(
    resources: Resources, agent: Agent, next_due_at: float, checked: bool
) -> None:
    at = ago(next_due_at).replace(second=0, microsecond=0)
    schedule = await scheduled(resources, agent, at, checked=checked)
    await forget_old_runs(resources)
    assert len(await ledger(resources, schedule.id)) == 1


async def test_what_was_forgotten_is_not_opened_again(resources: Resources, agent: Agent) -> None:
    schedule = await scheduled(resources, agent, datetime.now(UTC) - seconds(90))
    await forget_old_runs(resources)
    await open_all(resources)
    found = await fetch(resources, "SELECT due_at FROM runs WHERE schedule_id = :id", id=schedule.id)
    assert found
    assert min(row["due_at"] for row in found) > ago(1)


async def test_the_oldest_go_first_and_the_next_round_goes_on(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FORGET_AT_ONCE", 2)
    made = [await old_run(resources, agent, id=id_of(OLD + day)) for day in (0, 3, 1, 4, 2)]
    left = [(await forget_old_runs(resources), await run_ids(resources)) for _ in range(3)]
    assert left == [
        (True, {made[0].id, made[2].id, made[4].id}),
        (True, {made[0].id}),
        (False, set()),
    ]


async def test_a_long_conversation_goes_in_pieces_and_its_run_with_the_last(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FORGET_AT_ONCE", 2)
    task_id = await converse(resources, await old_run(resources, agent))
    await fetch(
        resources,
        """INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
        SELECT gen_random_uuid(), account_id, task_id, content, created_at, updated_at
        FROM messages, generate_series(1, 4) WHERE task_id = :id""",
        id=task_id,
    )
    left = [(await forget_old_runs(resources), await counts(resources)) for _ in range(3)]
    assert left == [
        (True, ALL | {"events": 0, "messages": 3}),
        (True, ALL | {"events": 0, "messages": 1}),
        (False, NONE),
    ]


@pytest.mark.parametrize(
    "hold",
    ["SELECT 1 FROM runs FOR NO KEY UPDATE", "SELECT 1 FROM tasks FOR KEY SHARE"],
    ids=["its-run-changes", "a-message-is-added"],
)
async def test_what_somebody_holds_is_left_for_the_next_round(
    resources: Resources, agent: Agent, hold: str
) -> None:
    await converse(resources, await old_run(resources, agent))
    async with resources.db.begin() as session:
        await rows(session, hold)
        await forget_old_runs(resources)
        assert (await counts(resources))["runs"] == 1
    await forget_old_runs(resources)
    assert await counts(resources) == NONE


async def test_a_task_that_is_spoken_in_while_it_is_looked_at_stays(
    resources: Resources, agent: Agent, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await converse(resources, await old_run(resources, agent))

    def speak_meanwhile(_: UUID) -> UUID:
        # Between the choice of the runs and the lock on their tasks.
        postgres.execute("UPDATE messages SET updated_at = now()", url=resources.settings.database_url)
        return task_id

    monkeypatch.setattr(retention, "run_task_id", speak_meanwhile)
    await forget_old_runs(resources)
    assert await counts(resources) == ALL


async def test_closing_a_task_afterwards_finds_none(hooked: Resources, agent: Agent) -> None:
    task_id = await converse(hooked, await old_run(hooked, agent))
    await forget_old_runs(hooked)
    with pytest.raises(NotFound, match=f"task '{task_id}' not found"):
        async with hooked.db.begin() as session:
            await close(session, hooked.hooks, task_id, TaskStatus.COMPLETED, None)


@pytest.fixture
async def sweep(hooked: Resources) -> AsyncIterator[Sweep]:
    await nobody_sweeps(hooked)
    made = Sweep(hooked)
    yield made
    await made.close()


async def test_the_sweep_forgets_a_batch_each_time_until_there_is_no_more(
    resources: Resources, agent: Agent, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FORGET_AT_ONCE", 2)
    for _ in range(3):
        await old_run(resources, agent)
    left: list[int] = []
    for _ in range(2):
        await sweep.sweep_once()
        left.append((await counts(resources))["runs"])
    await old_run(resources, agent)
    await sweep.sweep_once()
    # Then it looks once a minute.
    assert [*left, (await counts(resources))["runs"]] == [1, 0, 1]


async def test_a_look_walks_only_what_is_old(resources: Resources, agent: Agent) -> None:
    for age, count, finished in ((1, 20_000, True), (OLD, 50, False)):
        await fetch(
            resources,
            """
            INSERT INTO runs (id, account_id, agent_id, schedule_id, fire_id, cause, due_at, status,
                opened_at, finished_at, updated_at, principal)
            SELECT overlay(CAST(:first AS text) placing lpad(to_hex(n), 12, '0') from 25)::uuid, 'default',
                :agent_id, gen_random_uuid(), 'k', 'cadence', :at, 'delivered', :at,
                CASE WHEN :finished THEN CAST(:at AS timestamptz) END, :at, '{}'
            FROM generate_series(1, :count) AS n
            """,
            first=str(first_id_of(ago(age))),
            agent_id=agent.id,
            at=ago(age),
            finished=finished,
            count=count,
        )
    await fetch(resources, "ANALYZE runs")
    cutoff = ago(DAYS)
    plan = await explain(
        resources, LOCK_RUNS_SQL, first_young=first_id_of(cutoff), cutoff=cutoff, limit=5_000
    )
    assert plan.indexes_of("runs") == {"pk_runs"}
    assert plan.most_of("runs") == 50


TRACES = ("spans", "trackers", "checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def trace(resources: Resources, task_id: UUID, *, days: float) -> None:
    """A row of that age in each table that an agent's tracing and graphs fill for a task."""
    given: dict[str, object] = {"task": task_id, "at": ago(days)}
    same = "SELECT account_id, id::text, '', '1'"
    for sql in (
        """INSERT INTO spans SELECT account_id, 'a', owner, id, 't', NULL, 'n', :at, NULL, NULL, NULL, NULL,
            :at, :at""",
        "INSERT INTO trackers SELECT id, account_id, agent_id, id, NULL, NULL, NULL, :at, :at",
        f"INSERT INTO checkpoints {same}, id, NULL, '{{}}', '{{}}', :at",
        f"INSERT INTO checkpoint_blobs {same}, '1', id, 'empty', NULL",
        f"INSERT INTO checkpoint_writes {same}, 'step', 0, id, '', 'c', NULL, ''",
    ):
        used = {name: value for name, value in given.items() if name == "task" or ":at" in sql}
        await fetch(resources, f"{sql} FROM tasks WHERE id = :task", **used)


async def left(resources: Resources) -> list[int]:
    found = [await fetch(resources, f"SELECT count(*) AS n FROM {table}") for table in TRACES]  # noqa: S608
    return [one[0]["n"] for one in found]


async def test_spans_trackers_and_checkpoints_go_with_the_task(resources: Resources, agent: Agent) -> None:
    await trace(resources, await converse(resources, await old_run(resources, agent)), days=OLD)

    await forget_old_runs(resources)

    assert (await counts(resources), await left(resources)) == (NONE, [0] * 5)


@pytest.mark.parametrize("table", ["spans", "checkpoints"])
async def test_a_task_that_is_worked_in_stays(resources: Resources, agent: Agent, table: str) -> None:
    task_id = await converse(resources, await old_run(resources, agent))
    await trace(resources, task_id, days=OLD)
    column = "updated_at" if table == "spans" else "created_at"
    await fetch(resources, f"UPDATE {table} SET {column} = :at", at=ago(YOUNG))  # noqa: S608

    await forget_old_runs(resources)

    assert (await counts(resources), await left(resources)) == (ALL, [1] * 5)


async def test_a_task_with_many_spans_goes_in_rounds(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FORGET_AT_ONCE", 3)
    await trace(resources, await converse(resources, await old_run(resources, agent)), days=OLD)
    await fetch(
        resources,
        """INSERT INTO spans SELECT account_id, n::text, owner, task_id, 't', NULL, 'n', start_time, NULL,
            NULL, NULL, NULL, created_at, updated_at FROM generate_series(1, 4) n, spans""",
    )

    rounds = [(await forget_old_runs(resources), (await left(resources))[0]) for _ in range(2)]

    assert rounds == [(True, 2), (False, 0)]
    assert await counts(resources) == NONE
