"""POST /runs/{id}/cancel: at once what was not sent, at the agent what was."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from agentex.agents.models import AcpType, Agent
from agentex.auth.authorize import Operation, ResourceType
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.runs import service
from agentex.runs.models import Run, RunReason, RunStatus
from agentex.tasks.models import Task, TaskStatus
from tests.api.ledger.stage import NOWHERE, add_agent, add_run, add_task, read_run
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.authz import ScriptedAuthz


@pytest.fixture
async def agent(resources: Resources, acp_server: AcpServer) -> Agent:
    return await add_agent(resources, acp_url=acp_server.url)


async def cancel(client: httpx2.AsyncClient, run: Run) -> tuple[int, Any]:
    answer = await client.post(f"/runs/{run.id}/cancel")
    return answer.status_code, answer.json()


async def read_task(resources: Resources, task: Task) -> tuple[TaskStatus, str | None]:
    async with resources.db.read() as session:
        found = await session.get_one(Task, task.id)
        return found.status, found.status_reason


@pytest.mark.parametrize("status", [RunStatus.DUE, RunStatus.QUEUED])
async def test_what_waits_is_canceled_at_once_and_nobody_is_told(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, acp_server: AcpServer, status: RunStatus
) -> None:
    run = await add_run(resources, agent, status)
    code, body = await cancel(client, run)
    row = await read_run(resources, run.id)
    assert (code, body["status"], row.status) == (200, "canceled", RunStatus.CANCELED)
    assert row.cancel_requested_at is not None
    assert row.finished_at is not None
    assert acp_server.requests == []


@pytest.mark.parametrize(
    ("status", "lane"),
    [(RunStatus.LAUNCHING, "deliver"), (RunStatus.LAUNCHING, "answer"), (RunStatus.RUNNING, "answer")],
)
async def test_what_a_worker_holds_is_canceled_by_that_worker(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, status: RunStatus, lane: str
) -> None:
    held = {"claimed_by": new_id(), "claimed_until": datetime.now(UTC) + timedelta(minutes=1)}
    run = await add_run(resources, agent, status, lane=lane, **held)
    code, body = await cancel(client, run)
    row = await read_run(resources, run.id)
    assert (code, body["status"], row.status, row.finished_at) == (200, status, status, None)
    assert row.cancel_requested_at is not None


@pytest.mark.parametrize("status", [RunStatus.DELIVERED, RunStatus.RUNNING])
async def test_what_the_agent_has_is_canceled_there_and_its_task_with_it(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, acp_server: AcpServer, status: RunStatus
) -> None:
    task = await add_task(resources, agent)
    run = await add_run(resources, agent, status, lane="deliver", task_id=task.id)
    code, body = await cancel(client, run)
    assert (code, body["status"]) == (200, "canceled")
    assert await read_task(resources, task) == (TaskStatus.CANCELED, "its run was canceled")
    assert [(one.method, one.headers["idempotency-key"]) for one in acp_server.requests] == [
        ("task/cancel", f"cancel:{task.id}")
    ]
    params: Any = acp_server.requests[0].params
    assert (params["agent"], params["task"]) == (
        params["agent"] | {"id": str(agent.id), "name": "echo"},
        params["task"] | {"id": str(task.id), "status": "CANCELED"},
    )


@pytest.mark.parametrize("how", ["away", "error", "garbage"])
async def test_an_agent_that_cannot_be_told_does_not_keep_the_run_alive(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer, how: str
) -> None:
    acp_server.script("task/cancel", [Reply(status=500) if how == "error" else Reply(body="garbage")])
    agent = await add_agent(resources, acp_url=NOWHERE if how == "away" else acp_server.url)
    task = await add_task(resources, agent)
    run = await add_run(resources, agent, RunStatus.DELIVERED, task_id=task.id)
    code, body = await cancel(client, run)
    assert (code, body["status"], (await read_task(resources, task))[0]) == (
        200,
        "canceled",
        TaskStatus.CANCELED,
    )


async def test_cancel_is_idempotent_and_tells_the_agent_once(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, acp_server: AcpServer
) -> None:
    task = await add_task(resources, agent)
    run = await add_run(resources, agent, RunStatus.DELIVERED, task_id=task.id)
    answers = await asyncio.gather(*[cancel(client, run) for _ in range(4)])
    answers.append(await cancel(client, run))
    assert [code for code, _ in answers] == [200] * 5
    assert answers[-1][1]["status"] == "canceled"
    assert acp_server.counts == {"task/cancel": 1}


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "canceled"])
async def test_what_waits_with_a_task_is_stopped_there_also_by_a_repeat(
    client: httpx2.AsyncClient, resources: Resources, agent: Agent, acp_server: AcpServer, *, waits: bool
) -> None:
    task = await add_task(resources, agent)
    # Canceled by a process that died before it closed the task.
    then = datetime.now(UTC)
    canceled = {"finished_at": then, "cancel_requested_at": then, "to_stop_since": then}
    before, columns = (RunStatus.DUE, {}) if waits else (RunStatus.CANCELED, canceled)
    run = await add_run(resources, agent, before, lane="deliver", task_id=task.id, **columns)
    answers = [(await cancel(client, run))[0] for _ in range(2)]
    assert (answers, (await read_task(resources, task))[0]) == ([200, 200], TaskStatus.CANCELED)
    assert acp_server.counts == {"task/cancel": 1}
    assert (await read_run(resources, run.id)).to_stop_since is None


@pytest.mark.parametrize(
    ("before", "has_task", "noted"),
    [
        (RunStatus.DUE, False, False),
        (RunStatus.DUE, True, True),
        (RunStatus.LAUNCHING, False, True),
        (RunStatus.DELIVERED, True, True),
    ],
)
async def test_a_cancel_is_noted_until_it_is_carried_out(
    client: httpx2.AsyncClient,
    resources: Resources,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: RunStatus,
    has_task: bool,
    noted: bool,
) -> None:
    async def died(_: Resources, __: UUID) -> None:
        """What becomes of a process between the request and its carrying out."""

    monkeypatch.setattr(service, "stop_at_agent", died)
    task_id = (await add_task(resources, agent)).id if has_task else None
    run = await add_run(resources, agent, before, lane="deliver", task_id=task_id)
    await cancel(client, run)
    assert ((await read_run(resources, run.id)).to_stop_since is not None) is noted


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (RunStatus.SUCCEEDED, None),
        (RunStatus.FAILED, RunReason.AGENT_ERROR),
        (RunStatus.TIMED_OUT, None),
        (RunStatus.SKIPPED, RunReason.MISSED),
    ],
)
async def test_what_has_ended_otherwise_cannot_be_canceled(
    client: httpx2.AsyncClient,
    resources: Resources,
    agent: Agent,
    status: RunStatus,
    reason: RunReason | None,
) -> None:
    run = await add_run(resources, agent, status, reason=reason)
    before = await read_run(resources, run.id)
    code, body = await cancel(client, run)
    assert (code, body["message"]) == (
        400,
        f"run {run.id} is {status}; only a run that has not ended can be canceled",
    )
    assert (await read_run(resources, run.id)).model_dump() == before.model_dump()


async def test_a_sync_agent_is_told_nothing(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer
) -> None:
    sync = await add_agent(resources, "sync", acp_type=AcpType.SYNC, acp_url=acp_server.url)
    run = await add_run(resources, sync, RunStatus.RUNNING, lane="answer", claimed_by=new_id())
    code, body = await cancel(client, run)
    assert (code, body["status"], acp_server.requests) == (200, "running", [])


@pytest.mark.parametrize(
    ("deny", "code"),
    [
        ({(Operation.CANCEL, ResourceType.RUN)}, 403),
        ({(Operation.CANCEL, ResourceType.RUN), (Operation.READ, ResourceType.RUN)}, 404),
    ],
    ids=["readable", "not-readable"],
)
async def test_who_may_not_cancel(
    client: httpx2.AsyncClient,
    resources: Resources,
    agent: Agent,
    authz: ScriptedAuthz,
    deny: set[tuple[Operation, ResourceType]],
    code: int,
) -> None:
    run = await add_run(resources, agent, RunStatus.DUE)
    authz.deny = deny
    assert (await cancel(client, run))[0] == code
    assert (await client.get(f"/runs/{run.id}")).status_code == (200 if code == 403 else 404)
    assert (await read_run(resources, run.id)).status is RunStatus.DUE


@pytest.mark.parametrize(
    ("verb", "status", "reason", "error"),
    [
        ("complete", RunStatus.SUCCEEDED, None, None),
        ("fail", RunStatus.FAILED, RunReason.AGENT_ERROR, "why"),
        ("cancel", RunStatus.CANCELED, None, None),
    ],
)
async def test_closing_a_task_over_http_ends_its_run(
    client: httpx2.AsyncClient,
    resources: Resources,
    agent: Agent,
    verb: str,
    status: RunStatus,
    reason: RunReason | None,
    error: str | None,
) -> None:
    task = await add_task(resources, agent)
    run = await add_run(resources, agent, RunStatus.RUNNING, task_id=task.id)
    answer = await client.post(f"/tasks/{task.id}/{verb}", json={"reason": "why"})
    assert answer.status_code == 200, answer.text
    row = await read_run(resources, run.id)
    assert (row.status, row.reason, row.error, row.finished_at is not None) == (status, reason, error, True)
