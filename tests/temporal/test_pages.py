"""PageWorkflow on a real Temporal: rounds, retries, long histories, and losing Temporal in the middle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner

from agentex.agents.models import Agent
from agentex.executors.base import Lane
from agentex.ids import fire_id, new_id
from agentex.resources import Resources
from agentex.runs import workflow as page_workflow
from agentex.runs.models import Run, RunCause, RunReason, RunStatus
from agentex.runs.pages import PageRef, start_page
from agentex.runs.workflow import PageWorkflow
from tests.api.ledger.stage import add_run, add_schedule, read_run, seconds
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.temporal.workers import eventually, running_workers


async def due_run(resources: Resources, agent: Agent, **columns: Any) -> Run:
    """A run in a page of its own."""
    schedule = await add_schedule(resources, agent, None)
    due_at = datetime.now(UTC).replace(microsecond=0)
    given: dict[str, Any] = {
        "schedule_id": schedule.id,
        "schedule_version": 1,
        "cause": RunCause.CADENCE,
        "fire_id": fire_id(due_at),
        "due_at": due_at,
        "next_attempt_at": due_at,
        "batch_id": new_id(),
        "lane": Lane.ANSWER if agent.acp_type == "sync" else Lane.DELIVER,
        "page": 0,
    }
    return await add_run(resources, agent, RunStatus.DUE, **(given | columns))


async def start(resources: Resources, run: Run) -> WorkflowHandle[PageWorkflow, None]:
    assert isinstance(run.batch_id, UUID)
    assert run.lane is not None
    return await start_page(resources, PageRef(run.batch_id, run.lane, 0))


@pytest.mark.usefixtures("workers")
async def test_a_page_is_launched_again_for_its_retries_and_with_the_same_ids(
    resources: Resources, echo: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("event/send", [Reply(status=500), Reply()])
    run = await due_run(resources, echo)
    await (await start(resources, run)).result()
    row = await read_run(resources, run.id)
    assert (row.status, row.attempt, row.error) == (RunStatus.DELIVERED, 2, None)
    sent: list[Any] = [one.params["event"] for one in acp_server.requests if one.method == "event/send"]
    assert [event["id"] for event in sent] == [sent[0]["id"]] * 2


@pytest.mark.usefixtures("workers")
async def test_a_page_waits_for_a_stagger(resources: Resources, echo: Agent, acp_server: AcpServer) -> None:
    later = datetime.now(UTC) + seconds(1.5)
    run = await due_run(resources, echo, next_attempt_at=later)
    await (await start(resources, run)).result()
    row = await read_run(resources, run.id)
    assert (row.status, row.attempt) == (RunStatus.DELIVERED, 1)
    assert row.launched_at is not None
    assert row.launched_at >= later
    assert acp_server.counts["event/send"] == 1


@pytest.mark.usefixtures("workers")
async def test_a_page_that_runs_already_is_not_started_twice(
    resources: Resources, answering: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])
    run = await due_run(resources, answering)
    first = await start(resources, run)
    await acp_server.is_hanging()
    second = await start(resources, run)
    acp_server.release()
    await first.result()
    assert (second.id, acp_server.counts["message/send"]) == (first.id, 1)
    assert (await read_run(resources, run.id)).status is RunStatus.SUCCEEDED


async def test_a_long_page_goes_on_in_a_new_history(
    resources: Resources, echo: Agent, acp_server: AcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_workflow, "ROUNDS_PER_HISTORY", 1)
    acp_server.script("event/send", [Reply(status=500), Reply()])
    run = await due_run(resources, echo)
    # The sandbox would import the module anew, with the number as it is written.
    async with running_workers(resources, workflow_runner=UnsandboxedWorkflowRunner()):
        handle = await start(resources, run)
        await handle.result()
    first = resources.temporal.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    description = await first.describe()
    row = await read_run(resources, run.id)
    assert (description.status, row.status, row.attempt) == (
        WorkflowExecutionStatus.CONTINUED_AS_NEW,
        RunStatus.DELIVERED,
        2,
    )


@pytest.mark.usefixtures("workers")
async def test_an_answer_is_kept_though_its_workflow_is_gone(
    resources: Resources, answering: Agent, acp_server: AcpServer, caplog: pytest.LogCaptureFixture
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])
    run = await due_run(resources, answering)
    handle = await start(resources, run)
    await acp_server.is_hanging()
    await handle.terminate("out of band")

    async def noticed() -> bool:
        return "temporal gave up a page that is in flight" in caplog.messages

    await eventually(noticed)
    assert (await read_run(resources, run.id)).status in {RunStatus.LAUNCHING, RunStatus.RUNNING}
    acp_server.release()

    async def ended() -> bool:
        return (await read_run(resources, run.id)).finished_at is not None

    await eventually(ended)
    row = await read_run(resources, run.id)
    assert row.output is not None
    assert (row.status, [content["content"] for content in row.output]) == (RunStatus.SUCCEEDED, ["Hello"])
    assert (acp_server.counts, acp_server.dropped) == ({"message/send": 1}, 0)


@pytest.mark.usefixtures("workers")
async def test_an_open_answer_shows_as_running_and_can_be_canceled(
    resources: Resources, answering: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(deltas=2, hang="in_stream")])
    run = await due_run(resources, answering)
    handle = await start(resources, run)

    async def shown() -> bool:
        return (await read_run(resources, run.id)).status is RunStatus.RUNNING

    await eventually(shown)
    async with resources.db.begin() as session:
        row = await session.get_one(Run, run.id)
        row.cancel_requested_at = datetime.now(UTC)
        session.add(row)
    await handle.result()
    row = await read_run(resources, run.id)
    assert (row.status, row.reason) == (RunStatus.CANCELED, None)
    await acp_server.has_dropped()


async def test_a_worker_that_is_cut_says_that_the_outcome_is_unknown(
    resources: Resources, answering: Agent, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(hang="before")])
    sent = await due_run(resources, answering)
    async with running_workers(resources) as pages:
        handle = await start(resources, sent)
        await acp_server.is_hanging()
        pages.drain()
        pages.cut()

        async def ended() -> bool:
            return (await read_run(resources, sent.id)).finished_at is not None

        await eventually(ended)
        await handle.terminate("the test is over")
    row = await read_run(resources, sent.id)
    assert (row.status, row.reason, row.error) == (
        RunStatus.FAILED,
        RunReason.OUTCOME_UNKNOWN,
        "the worker was shut down before the agent's answer came",
    )


@pytest.mark.usefixtures("workers")
async def test_a_page_without_runs_ends_at_once(resources: Resources) -> None:
    handle = await start_page(resources, PageRef(new_id(), Lane.DELIVER, 0))
    await handle.result()
    description = await handle.describe()
    assert description.status is WorkflowExecutionStatus.COMPLETED
    assert timedelta(0) <= (description.close_time or description.start_time) - description.start_time
