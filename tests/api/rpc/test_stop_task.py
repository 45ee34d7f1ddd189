"""task/cancel and task/interrupt: the task first, then the agent."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

import httpx2
import pytest

from agentex.agents.models import Agent
from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from agentex.runs.models import RunStatus
from tests.api.ledger.stage import add_run, read_run
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import Json, create_task, register, result, rpc, rpc_error, told_agent
from tests.support.authz import ScriptedAuthz


@dataclass(frozen=True)
class Stop:
    """A method, the status it gives, the permission it needs, and its word in keys and messages."""

    method: str
    status: str
    operation: Operation
    word: str
    done: str


CANCEL = Stop("task/cancel", "CANCELED", Operation.CANCEL, "cancel", "closed")
INTERRUPT = Stop("task/interrupt", "INTERRUPTED", Operation.UPDATE, "interrupt", "interrupted")
SILENT = {"x-stainless-retry-count": "1"}

each_stop = pytest.mark.parametrize("stop", [CANCEL, INTERRUPT], ids=["cancel", "interrupt"])


@each_stop
@pytest.mark.parametrize("by", ["task_id", "task_name"])
async def test_the_task_gets_its_status_and_the_agent_is_told(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, stop: Stop, by: str
) -> None:
    task = await create_task(client, agent, name="t1", params={"depth": 3})

    answer = await rpc(client, agent, stop.method, {by: task["id" if by == "task_id" else "name"]})

    read = (await client.get(f"/tasks/{task['id']}")).json()
    del read["agents"]
    assert answer == result(read)
    assert read == {**task, "status": stop.status, "updated_at": read["updated_at"]}
    sent = acp_server.requests[1]
    assert len(acp_server.requests) == 2
    assert (sent.method, sent.headers["idempotency-key"], sent.params) == (
        stop.method,
        sent.id,
        {"agent": told_agent(agent, acp_server.url), "task": read},
    )
    assert str(sent.id).startswith(f"{stop.word}:")


async def test_a_sync_agent_is_interrupted_too(
    client: httpx2.AsyncClient, sync_agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, sync_agent)

    answer = await rpc(client, sync_agent, "task/interrupt", {"task_id": task["id"]})

    assert (answer["result"]["status"], dict(acp_server.counts)) == ("INTERRUPTED", {"task/interrupt": 1})


async def test_an_interrupt_of_an_interrupted_task_is_harmless_and_the_agent_is_told_again(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, agent)
    first = await rpc(client, agent, "task/interrupt", {"task_id": task["id"]})

    second = await rpc(client, agent, "task/interrupt", {"task_id": task["id"]})

    assert second["result"] == {**first["result"], "updated_at": second["result"]["updated_at"]}
    told = [one.id for one in acp_server.requests[1:]]
    assert len(set(told)) == len(told) == 2


@each_stop
@pytest.mark.parametrize("verb", ["complete", "fail", "cancel"])
async def test_a_closed_task_is_not_stopped(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, stop: Stop, verb: str
) -> None:
    task = await create_task(client, agent)
    status = (await client.post(f"/tasks/{task['id']}/{verb}")).json()["status"]

    answer = await rpc(client, agent, stop.method, {"task_id": task["id"]})

    message = f"task {task['id']} is {status}; only a task that is RUNNING or INTERRUPTED can be {stop.done}"
    assert answer == rpc_error(-32603, message)
    assert dict(acp_server.counts) == {"task/create": 1}


async def test_an_interrupted_task_can_be_canceled(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)
    await rpc(client, agent, "task/interrupt", {"task_id": task["id"]})

    answer = await rpc(client, agent, "task/cancel", {"task_id": task["id"]})

    assert answer["result"]["status"] == "CANCELED"


@each_stop
async def test_a_silent_repeat_gets_the_answer_and_tells_nobody(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, stop: Stop
) -> None:
    task = await create_task(client, agent)
    first = await rpc(client, agent, stop.method, {"task_id": task["id"]})

    repeat = await rpc(client, agent, stop.method, {"task_id": task["id"]}, headers=SILENT)

    assert (first["error"], repeat) == (None, first)
    assert dict(acp_server.counts) == {"task/create": 1, stop.method: 1}


@each_stop
async def test_a_failure_at_the_agent_is_said_and_the_task_stays_stopped(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, stop: Stop
) -> None:
    task = await create_task(client, agent)
    acp_server.script(stop.method, [Reply(error_code=-32601, error_message="not found")])

    answers = [
        await rpc(client, agent, stop.method, {"task_id": task["id"]}, headers=headers)
        for headers in ({}, SILENT)
    ]

    sent = acp_server.requests[1]
    host = acp_server.url.removeprefix("http://")
    message = f"agent {host}, {stop.method}: answered error -32601: not found ({sent.id} is kept)"
    assert answers == [rpc_error(-32603, message)] * 2
    assert (await client.get(f"/tasks/{task['id']}")).json()["status"] == stop.status


@each_stop
async def test_an_agent_that_could_not_be_reached_is_told_by_the_repeat(
    client: httpx2.AsyncClient, agent: Json, acp_server: AcpServer, stop: Stop
) -> None:
    task = await create_task(client, agent)
    acp_server.script(stop.method, [Reply(status=429)])
    refused = await rpc(client, agent, stop.method, {"task_id": task["id"]})

    repeat = await rpc(client, agent, stop.method, {"task_id": task["id"]}, headers=SILENT)

    first, second = acp_server.requests[1:]
    assert (refused["result"], repeat["result"]["status"]) == (None, stop.status)
    assert (first.id, first.params) == (second.id, second.params)


@each_stop
async def test_another_agents_task_is_not_stopped(
    client: httpx2.AsyncClient, agent: Json, stop: Stop
) -> None:
    task = await create_task(client, agent)
    other = await register(client, name="other")

    answer = await rpc(client, other, stop.method, {"task_id": task["id"]})

    assert answer == rpc_error(-32603, f"task {task['id']} belongs to another agent than 'other'")
    assert (await client.get(f"/tasks/{task['id']}")).json()["status"] == "RUNNING"


@each_stop
@pytest.mark.parametrize("by", ["task_id", "task_name"])
async def test_an_unknown_task_is_named(client: httpx2.AsyncClient, agent: Json, stop: Stop, by: str) -> None:
    named = str(uuid4())

    assert await rpc(client, agent, stop.method, {by: named}) == rpc_error(
        -32603, f"task '{named}' not found"
    )


@each_stop
async def test_who_may_not_stops_nothing(
    client: httpx2.AsyncClient, agent: Json, authz: ScriptedAuthz, acp_server: AcpServer, stop: Stop
) -> None:
    task = await create_task(client, agent)
    authz.deny = {(stop.operation, ResourceType.TASK)}

    answer = await rpc(client, agent, stop.method, {"task_id": task["id"]})

    assert answer == rpc_error(-32603, f"{stop.operation} on task {task['id']} is not allowed: scripted")
    assert dict(acp_server.counts) == {"task/create": 1}


@each_stop
@pytest.mark.parametrize("params", [{}, {"task_id": str(uuid4()), "task_name": "t1"}])
async def test_exactly_one_task_is_to_be_named(
    client: httpx2.AsyncClient, agent: Json, stop: Stop, params: Json
) -> None:
    message = f"params of {stop.method}: give task_id or task_name, and not both"
    assert await rpc(client, agent, stop.method, params) == rpc_error(-32602, message)


@pytest.mark.parametrize(("stop", "status"), [(CANCEL, RunStatus.CANCELED), (INTERRUPT, RunStatus.RUNNING)])
async def test_the_run_of_a_canceled_task_ends_and_that_of_an_interrupted_one_goes_on(
    client: httpx2.AsyncClient, agent: Json, resources: Resources, stop: Stop, status: RunStatus
) -> None:
    task = await create_task(client, agent)
    async with resources.db.read() as session:
        known = await session.get_one(Agent, UUID(agent["id"]))
    run = await add_run(resources, known, RunStatus.RUNNING, task_id=UUID(task["id"]))

    await rpc(client, agent, stop.method, {"task_id": task["id"]})

    assert (await read_run(resources, run.id)).status == status
