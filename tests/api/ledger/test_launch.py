"""A launch of one page, from the claim to the record, under permission and without it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentex.agents.models import AcpType, Agent
from agentex.auth.authorize import Operation, ResourceType
from agentex.auth.principal import Principal
from agentex.executors.base import Lane
from agentex.ids import fire_id, new_id, run_event_id, run_task_id
from agentex.resources import Resources
from agentex.runs.dispatch import Dispatch
from agentex.runs.launch import Launch
from agentex.runs.models import Run, RunCause, RunReason, RunStatus
from agentex.runs.pages import PageRef
from agentex.tasks.models import TaskStatus
from agentex.tasks.service import close
from tests.api.ledger.stage import BATCH, add_agent, add_schedule, fetch, minutes, open_run, read_run
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.authz import ScriptedAuthz

TASK_RULES = {
    (Operation.EXECUTE, ResourceType.AGENT): "agent.execute is denied: scripted",
    (Operation.CREATE, ResourceType.TASK): "task.create is denied: scripted",
    (Operation.UPDATE, ResourceType.TASK): "task.update is denied: scripted",
}


@pytest.fixture
async def echo(resources: Resources, acp_server: AcpServer) -> Agent:
    """An async agent that answers."""
    return await add_agent(resources, acp_url=acp_server.url)


async def launch(resources: Resources, lane: Lane = Lane.DELIVER) -> float | None:
    page = PageRef(BATCH, lane, 0)
    return await Launch(resources, Dispatch(resources), page, asyncio.Event(), lambda: None).run()


async def end(resources: Resources, run: Run) -> tuple[RunStatus, RunReason | None, str | None]:
    row = await read_run(resources, run.id)
    return row.status, row.reason, row.error


async def opened(resources: Resources) -> int:
    return (await fetch(resources, "SELECT opened FROM schedule_totals"))[0]["opened"]


async def test_an_async_agent_gets_the_task_and_then_the_event(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    schedule = await add_schedule(
        hooked, echo, None, name="nightly", task_params={"a": 1}, task_metadata={"mine": True}
    )
    run = await open_run(hooked, echo, schedule)
    assert await launch(hooked) is None
    row = await read_run(hooked, run.id)
    assert (row.status, row.attempt, row.task_id, row.claimed_by) == (
        RunStatus.DELIVERED,
        1,
        run_task_id(run.id),
        None,
    )
    assert row.task_created_at is not None
    assert row.sending_at is not None
    assert row.delivered_at is not None
    create, send = acp_server.requests
    assert (create.method, create.headers["idempotency-key"]) == (
        "task/create",
        f"task:{run_task_id(run.id)}",
    )
    assert (send.method, send.headers["idempotency-key"]) == ("event/send", f"event:{run_event_id(run.id)}")
    task: Any = create.params["task"]
    assert (task["name"], task["params"], task["task_metadata"]) == (
        f"scheduled-run:{schedule.id}:{run.fire_id}",
        {"a": 1},
        {
            "display_name": "nightly",
            "mine": True,
            "schedule_id": str(schedule.id),
            "scheduled_fire_id": run.fire_id,
            "trigger_type": "scheduled",
            "fire_time": run.fire_id,
        },
    )
    event: Any = send.params["event"]
    assert (event["id"], event["task_id"], event["content"]["content"]) == (
        str(run_event_id(run.id)),
        str(run_task_id(run.id)),
        "go",
    )


async def test_a_sync_agent_gets_the_message_and_its_answer_is_the_output(
    hooked: Resources, acp_server: AcpServer
) -> None:
    agent = await add_agent(hooked, "sync", acp_type=AcpType.SYNC, acp_url=acp_server.url)
    schedule = await add_schedule(hooked, agent, None, task_metadata={"display_name": "Ours"})
    run = await open_run(hooked, agent, schedule, lane=Lane.ANSWER, cause=RunCause.MANUAL)
    assert await launch(hooked, Lane.ANSWER) is None
    row = await read_run(hooked, run.id)
    assert row.output is not None
    assert (row.status, [content["content"] for content in row.output]) == (RunStatus.SUCCEEDED, ["Hello"])
    assert [request.method for request in acp_server.requests] == ["message/send"]
    messages = await fetch(hooked, "SELECT content->>'content' AS text FROM messages ORDER BY created_at")
    assert [message["text"] for message in messages] == ["go", "Hello"]
    tasks = await fetch(hooked, "SELECT task_metadata FROM tasks")
    assert (tasks[0]["task_metadata"]["display_name"], tasks[0]["task_metadata"]["trigger_type"]) == (
        "Ours",
        "manual",
    )


@pytest.mark.parametrize("rule", TASK_RULES, ids=lambda rule: f"{rule[1]}.{rule[0]}")
async def test_a_denial_skips_the_run_says_the_rule_and_sends_nothing(
    hooked: Resources,
    echo: Agent,
    acp_server: AcpServer,
    authz: ScriptedAuthz,
    rule: tuple[Operation, ResourceType],
) -> None:
    schedule = await add_schedule(hooked, echo, None)
    run = await open_run(hooked, echo, schedule)
    authz.deny = {rule}
    assert await launch(hooked) is None
    assert await end(hooked, run) == (RunStatus.SKIPPED, RunReason.DENIED, TASK_RULES[rule])
    assert (acp_server.requests, await opened(hooked)) == ([], 0)


async def test_a_provider_that_keeps_no_tasks_is_not_asked_about_them(
    hooked: Resources, echo: Agent, authz: ScriptedAuthz
) -> None:
    authz.knows_tasks = False
    authz.deny = {(Operation.UPDATE, ResourceType.TASK)}
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None))
    await launch(hooked)
    assert (await end(hooked, run))[0] is RunStatus.DELIVERED


async def test_permission_is_asked_once_for_each_creator_and_agent_of_a_page(
    hooked: Resources, echo: Agent, authz: ScriptedAuthz
) -> None:
    authz.knows_tasks = False
    for user in ("ann", "bob", "ann"):
        principal = Principal(user_id=user).model_dump(mode="json")
        schedule = await add_schedule(hooked, echo, None, creator_principal=principal)
        await open_run(hooked, echo, schedule, principal=principal)
    await launch(hooked)
    assert sorted(authz.asked) == sorted(
        [(Operation.EXECUTE, ResourceType.AGENT), (Operation.CREATE, ResourceType.TASK)] * 2
    )


async def test_an_authorizer_that_is_away_makes_the_run_wait_and_then_run(
    hooked: Resources, echo: Agent, authz: ScriptedAuthz
) -> None:
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None))
    authz.unavailable = True
    wait = await launch(hooked)
    assert wait is not None
    assert 0 < wait <= 1
    assert await end(hooked, run) == (
        RunStatus.DUE,
        None,
        "The authorizer does not answer just now; repeat the request.",
    )
    authz.unavailable = False
    await fetch(hooked, "UPDATE runs SET next_attempt_at = now()")
    assert await launch(hooked) is None
    row = await read_run(hooked, run.id)
    assert (row.status, row.attempt, row.error) == (RunStatus.DELIVERED, 2, None)


async def test_an_authorizer_that_stays_away_fails_the_run_as_ours(
    hooked: Resources, echo: Agent, authz: ScriptedAuthz
) -> None:
    schedule = await add_schedule(hooked, echo, None, policies={"retries": {"window_seconds": 0}})
    run = await open_run(hooked, echo, schedule)
    authz.unavailable = True
    assert await launch(hooked) is None
    assert (await end(hooked, run))[:2] == (RunStatus.FAILED, RunReason.OURS)


async def test_a_deleted_schedule_s_run_is_skipped(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    schedule = await add_schedule(hooked, echo, None, deleted_at=datetime.now(UTC))
    run = await open_run(hooked, echo, schedule)
    await launch(hooked)
    assert (await end(hooked, run), acp_server.requests, await opened(hooked)) == (
        (RunStatus.SKIPPED, RunReason.SCHEDULE_DELETED, None),
        [],
        0,
    )


async def test_a_deleted_agent_s_run_is_skipped(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None))
    await fetch(hooked, "UPDATE agents SET deleted_at = now()")
    await launch(hooked)
    assert (await end(hooked, run), acp_server.requests) == (
        (RunStatus.SKIPPED, RunReason.AGENT_DELETED, None),
        [],
    )


async def test_of_a_backlog_that_nobody_launched_only_the_newest_is_delivered(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    schedule = await add_schedule(hooked, echo, None)
    now = datetime.now(UTC).replace(microsecond=0)
    made = [
        await open_run(hooked, echo, schedule, due_at=at, next_attempt_at=at, fire_id=fire_id(at))
        for at in [now - minutes(late) for late in (150, 40, 20, 2)]
    ]
    await launch(hooked)
    assert [await end(hooked, run) for run in made] == [
        *[(RunStatus.SKIPPED, RunReason.MISSED, None)] * 3,
        (RunStatus.DELIVERED, None, None),
    ]
    assert (
        (await read_run(hooked, made[3].id)).cause,
        acp_server.counts["event/send"],
        await opened(hooked),
    ) == (
        RunCause.CATCH_UP,
        1,
        1,
    )


async def test_a_run_that_was_to_be_canceled_is_not_sent(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    schedule = await add_schedule(hooked, echo, None)
    run = await open_run(hooked, echo, schedule, cancel_requested_at=datetime.now(UTC))
    await launch(hooked)
    assert ((await end(hooked, run))[0], acp_server.requests) == (RunStatus.CANCELED, [])


async def test_a_run_runs_with_the_definition_that_it_was_opened_with(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    schedule = await add_schedule(hooked, echo, None)
    await open_run(hooked, echo, schedule)
    await fetch(
        hooked,
        """UPDATE agent_run_schedules
        SET version = 2, initial_input = '{"type": "text", "content": "new"}'""",
    )
    await launch(hooked)
    event: Any = acp_server.requests[1].params["event"]
    assert event["content"]["content"] == "go"


async def test_a_run_without_its_definition_fails_as_ours(hooked: Resources, echo: Agent) -> None:
    schedule = await add_schedule(hooked, echo, None)
    run = await open_run(hooked, echo, schedule, schedule_version=9)
    await launch(hooked)
    assert await end(hooked, run) == (
        RunStatus.FAILED,
        RunReason.OURS,
        "the definition that this run was opened with is not in the database",
    )


async def test_a_run_that_finishes_on_its_task_goes_on_until_the_task_is_closed(
    hooked: Resources, echo: Agent
) -> None:
    run = await open_run(
        hooked, echo, await add_schedule(hooked, echo, None, policies={"finishes_on": "task"})
    )
    await launch(hooked)
    row = await read_run(hooked, run.id)
    assert (row.status, row.finished_at, row.task_id) == (RunStatus.RUNNING, None, run_task_id(run.id))
    async with hooked.db.begin() as session:
        await close(session, hooked.hooks, run_task_id(run.id), TaskStatus.COMPLETED, None)
    assert (await end(hooked, run))[0] is RunStatus.SUCCEEDED


async def test_a_500_is_tried_again_with_the_same_ids(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("event/send", [Reply(status=500), Reply()])
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None))
    wait = await launch(hooked)
    assert wait is not None
    await fetch(hooked, "UPDATE runs SET next_attempt_at = now()")
    assert await launch(hooked) is None
    assert (await end(hooked, run))[0] is RunStatus.DELIVERED
    sent: list[Any] = [one.params["event"] for one in acp_server.requests if one.method == "event/send"]
    assert (len(sent), sent[0] == sent[1]) == (2, True)
    rows_made = await fetch(
        hooked, "SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM tasks) AS t"
    )
    assert dict(rows_made[0]) == {"e": 1, "t": 1}


async def test_a_run_that_is_canceled_between_its_task_and_its_event_closes_the_task_at_the_agent(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("task/create", [Reply(hang="before")])
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None))
    launching = asyncio.create_task(launch(hooked))
    await acp_server.is_hanging()
    await fetch(hooked, "UPDATE runs SET cancel_requested_at = now() WHERE id = :id", id=run.id)
    acp_server.release()
    await launching
    tasks = await fetch(hooked, "SELECT id, status FROM tasks")
    assert (
        await end(hooked, run),
        [(task["id"], task["status"]) for task in tasks],
        [one.method for one in acp_server.requests],
    ) == (
        (RunStatus.CANCELED, None, None),
        [(run_task_id(run.id), TaskStatus.CANCELED)],
        ["task/create", "task/cancel"],
    )


async def test_a_run_that_is_canceled_while_it_is_delivered_is_stopped_at_the_agent(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("event/send", [Reply(hang="before")])
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None))
    launching = asyncio.create_task(launch(hooked))
    await acp_server.is_hanging()
    await fetch(hooked, "UPDATE runs SET cancel_requested_at = now() WHERE id = :id", id=run.id)
    acp_server.release()
    await launching
    assert ((await end(hooked, run))[0], [one.method for one in acp_server.requests]) == (
        RunStatus.CANCELED,
        ["task/create", "event/send", "task/cancel"],
    )


async def test_a_page_of_many_agents_is_sent_whole(hooked: Resources, acp_server: AcpServer) -> None:
    for number in range(3):
        agent = await add_agent(hooked, f"a{number}", acp_url=acp_server.url)
        for _ in range(20):
            await open_run(hooked, agent, await add_schedule(hooked, agent, None))
    assert await launch(hooked) is None
    found = await fetch(hooked, "SELECT status, count(*) AS n FROM runs GROUP BY 1")
    assert ([dict(row) for row in found], acp_server.counts) == (
        [{"status": "delivered", "n": 60}],
        {"task/create": 60, "event/send": 60},
    )


async def test_a_page_that_is_told_to_stop_starts_nothing(
    hooked: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None))
    stop = asyncio.Event()
    stop.set()
    page = PageRef(BATCH, Lane.DELIVER, 0)
    assert await Launch(hooked, Dispatch(hooked), page, stop, lambda: None).run() == 0
    assert ((await end(hooked, run))[0], acp_server.requests) == (RunStatus.DUE, [])


async def test_runs_of_another_page_are_left_alone(hooked: Resources, echo: Agent) -> None:
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None), batch_id=new_id())
    assert await launch(hooked) is None
    assert (await end(hooked, run))[0] is RunStatus.DUE


async def test_a_staggered_run_waits_for_its_place(hooked: Resources, echo: Agent) -> None:
    later = datetime.now(UTC) + timedelta(minutes=10)
    run = await open_run(hooked, echo, await add_schedule(hooked, echo, None), next_attempt_at=later)
    wait = await launch(hooked)
    assert wait is not None
    assert 300 < wait <= 600
    assert (await end(hooked, run))[0] is RunStatus.DUE
