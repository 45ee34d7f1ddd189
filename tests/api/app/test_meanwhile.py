"""What changes between the permission and the write: the write looks again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from agentex.runs.models import RunStatus
from tests.api.ledger.stage import add_agent, add_run, add_task, fetch, read_run
from tests.api.schedules.schedules import Schedules
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, create_task, register, registration, rpc, rpc_error
from tests.support.authz import ScriptedAuthz

Meanwhile = Callable[..., None]


@pytest.fixture
def meanwhile(authz: ScriptedAuthz, resources: Resources) -> Meanwhile:
    """Have a statement committed, once, while this permission is asked for."""

    def at(operation: Operation, kind: ResourceType, sql: str, **parameters: object) -> None:
        async def change(_: AsyncSession) -> None:
            if authz.asked[-1] == (operation, kind):
                authz.while_asked = None
                await fetch(resources, sql, **parameters)

        authz.while_asked = change

    return at


@pytest.fixture
async def schedules(client: httpx2.AsyncClient, resources: Resources, agent: Json) -> Schedules:
    resources.hooks.run_opened = None
    return Schedules(client, resources, agent["id"])


ACTIONS: list[tuple[str, str, Operation]] = [
    ("PATCH", "", Operation.UPDATE),
    ("DELETE", "", Operation.DELETE),
    ("POST", "/pause", Operation.UPDATE),
    ("POST", "/trigger", Operation.EXECUTE),
]


@pytest.mark.parametrize(("method", "verb", "operation"), ACTIONS, ids=str)
@pytest.mark.parametrize("gone", ["agents", "agent_run_schedules"])
async def test_a_schedule_that_is_deleted_meanwhile_is_not_changed(
    schedules: Schedules, meanwhile: Meanwhile, gone: str, method: str, verb: str, operation: Operation
) -> None:
    created = await schedules.create()
    meanwhile(operation, ResourceType.SCHEDULE, f"UPDATE {gone} SET deleted_at = now()")  # noqa: S608
    body = {"description": "changed"} if method == "PATCH" else None

    answer = await schedules.client.request(method, schedules.at("by-name", created) + verb, json=body)

    assert answer.status_code == 404
    found = await fetch(
        schedules.resources,
        "SELECT version, (SELECT count(*) FROM runs) AS runs FROM agent_run_schedules",
    )
    assert [tuple(row.values()) for row in found] == [(1, 0)]


async def test_an_agent_that_is_deleted_meanwhile_gets_no_schedule(
    schedules: Schedules, meanwhile: Meanwhile
) -> None:
    meanwhile(Operation.UPDATE, ResourceType.AGENT, "UPDATE agents SET deleted_at = now()")

    answer = await schedules.post()

    assert (answer.status_code, answer.json()["message"]) == (404, f"agent '{schedules.agent_id}' not found")


async def test_an_agent_that_registers_meanwhile_is_updated_only_with_leave_to(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, resources: Resources
) -> None:
    authz.deny = {(Operation.UPDATE, ResourceType.AGENT)}

    async def register(_: AsyncSession) -> None:
        authz.while_asked = None
        await add_agent(resources, "greeter", acp_url="http://127.0.0.1:1")

    authz.while_asked = register
    answer = await client.post("/agents/register", json=registration())

    found = await fetch(resources, "SELECT acp_url FROM agents")
    assert (answer.status_code, [row["acp_url"] for row in found]) == (403, ["http://127.0.0.1:1"])


@pytest.mark.parametrize("by", ["agent_id", "name"])
async def test_an_agent_that_is_deleted_meanwhile_registers_as_new_only_with_leave_to(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, meanwhile: Meanwhile, agent: Json, by: str
) -> None:
    body = registration(**({"agent_id": agent["id"]} if by == "agent_id" else {}))
    gone = (Operation.UPDATE, ResourceType.AGENT, "UPDATE agents SET deleted_at = now()")

    meanwhile(*gone)
    anew = (await client.post("/agents/register", json=body)).json()
    authz.deny = {(Operation.CREATE, ResourceType.AGENT)}
    meanwhile(*gone)
    refused = await client.post("/agents/register", json=registration(agent_id=anew["id"]))

    assert (anew["id"] == agent["id"], anew["created_at"] == anew["updated_at"]) == (False, True)
    assert (refused.status_code, (await client.get("/agents")).json()) == (403, [])


async def test_an_agent_that_is_renamed_meanwhile_keeps_its_name(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json
) -> None:
    meanwhile(Operation.UPDATE, ResourceType.AGENT, "UPDATE agents SET name = 'renamed'")

    anew = (await client.post("/agents/register", json=registration())).json()

    found = [(one["id"], one["name"]) for one in (await client.get("/agents")).json()]
    assert found == [(anew["id"], "greeter"), (agent["id"], "renamed")]


BUILD: Json = {"name": "greeter", "description": "the next version"}


async def test_an_agent_that_registers_meanwhile_is_not_taken_for_a_build(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, resources: Resources
) -> None:
    async def register(_: AsyncSession) -> None:
        authz.while_asked = None
        await add_agent(resources, "greeter", acp_url="http://127.0.0.1:1")

    authz.while_asked = register
    answer = await client.post("/agents/register-build", json=BUILD)

    assert (answer.status_code, answer.json()["status"]) == (200, "Ready")
    found = await fetch(resources, "SELECT acp_url, description FROM agents")
    assert [tuple(row.values()) for row in found] == [("http://127.0.0.1:1", "echoes")]


async def test_a_build_that_is_deployed_meanwhile_stays_deployed(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, resources: Resources
) -> None:
    await client.post("/agents/register-build", json=BUILD)
    deploy = "UPDATE agents SET status = 'Ready', acp_url = 'http://127.0.0.1:1', description = 'runs'"
    meanwhile(Operation.UPDATE, ResourceType.AGENT, deploy)

    answer = await client.post("/agents/register-build", json=BUILD)

    assert (answer.status_code, answer.json()["status"], answer.json()["description"]) == (
        200,
        "Ready",
        "runs",
    )


async def test_an_agent_that_is_deleted_meanwhile_gets_no_task(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json, acp_server: AcpServer
) -> None:
    meanwhile(Operation.CREATE, ResourceType.TASK, "UPDATE agents SET deleted_at = now()")

    answer = await rpc(client, agent, "task/create", {})

    assert answer == rpc_error(-32603, f"agent '{agent['id']}' not found")
    assert ((await client.get("/tasks")).json(), acp_server.requests) == ([], [])


async def test_a_task_that_is_closed_meanwhile_takes_no_event(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json, resources: Resources
) -> None:
    task = await create_task(client, agent)
    meanwhile(Operation.UPDATE, ResourceType.TASK, "UPDATE tasks SET status = 'FAILED'")

    answer = await rpc(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})

    message = f"task {task['id']} is FAILED; only a task that is RUNNING or INTERRUPTED takes events"
    assert answer == rpc_error(-32603, message)
    assert list(await fetch(resources, "SELECT 1 FROM events")) == []


CHANGES: list[tuple[str, str, Operation, Json | None]] = [
    ("PUT", "", Operation.UPDATE, {"merge_params": {"a": 1}}),
    ("DELETE", "", Operation.DELETE, None),
    ("POST", "/clean", Operation.DELETE, {"force": True}),
    ("POST", "/rehydrate", Operation.UPDATE, {"messages": []}),
]


@pytest.mark.parametrize(("method", "verb", "operation", "body"), CHANGES, ids=str)
async def test_a_task_that_is_deleted_meanwhile_is_not_changed(
    client: httpx2.AsyncClient,
    meanwhile: Meanwhile,
    agent: Json,
    resources: Resources,
    method: str,
    verb: str,
    operation: Operation,
    body: Json | None,
) -> None:
    task = await create_task(client, agent)
    meanwhile(operation, ResourceType.TASK, "UPDATE tasks SET status = 'DELETED'")

    body = {**body, "task_id": task["id"]} if body else None
    answer = await client.request(method, f"/tasks/{task['id']}{verb}", json=body)

    found = await fetch(resources, "SELECT status, params, cleaned_at FROM tasks")
    assert (answer.status_code, answer.json()["message"]) == (404, f"task '{task['id']}' not found")
    assert [tuple(row.values()) for row in found] == [("DELETED", None, None)]


@pytest.mark.parametrize("verb", ["complete", "interrupt"])
async def test_a_task_that_is_closed_meanwhile_stays_so(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json, verb: str
) -> None:
    task = await create_task(client, agent)
    meanwhile(Operation.UPDATE, ResourceType.TASK, "UPDATE tasks SET status = 'FAILED'")

    answer = await client.post(f"/tasks/{task['id']}/{verb}")

    found = (await client.get(f"/tasks/{task['id']}")).json()
    assert (answer.status_code, found["status"]) == (400, "FAILED")


@pytest.fixture
async def answerer(client: httpx2.AsyncClient, acp_server: AcpServer) -> Json:
    return await register(client, name="answerer", acp_type="sync", acp_url=acp_server.url)


async def test_an_agent_that_is_deleted_meanwhile_gets_no_message(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, answerer: Json, acp_server: AcpServer
) -> None:
    meanwhile(Operation.CREATE, ResourceType.TASK, "UPDATE agents SET deleted_at = now()")

    answer = await rpc(client, answerer, "message/send", {"content": TEXT})

    assert answer == rpc_error(-32603, f"agent '{answerer['id']}' not found")
    assert ((await client.get("/tasks")).json(), acp_server.requests) == ([], [])


async def test_a_task_that_is_closed_meanwhile_takes_no_message(
    client: httpx2.AsyncClient,
    meanwhile: Meanwhile,
    answerer: Json,
    acp_server: AcpServer,
    resources: Resources,
) -> None:
    task = await create_task(client, answerer)
    meanwhile(Operation.UPDATE, ResourceType.TASK, "UPDATE tasks SET status = 'FAILED'")

    answer = await rpc(client, answerer, "message/send", {"content": TEXT, "task_id": task["id"]})

    message = f"task {task['id']} is FAILED; only a task that is RUNNING or INTERRUPTED takes messages"
    assert (answer, acp_server.requests) == (rpc_error(-32603, message), [])
    assert list(await fetch(resources, "SELECT 1 FROM messages")) == []


@pytest.mark.parametrize("may_update", [True, False])
async def test_a_task_that_is_made_meanwhile_under_the_name_is_used_only_with_leave_to(
    client: httpx2.AsyncClient,
    authz: ScriptedAuthz,
    resources: Resources,
    answerer: Json,
    acp_server: AcpServer,
    may_update: bool,
) -> None:
    async def make(_: AsyncSession) -> None:
        if authz.asked[-1] == (Operation.CREATE, ResourceType.TASK):
            authz.while_asked = None
            await create_task(client, answerer, name="t1")

    authz.while_asked = make
    if not may_update:
        authz.deny = {(Operation.UPDATE, ResourceType.TASK)}
    answer = await rpc(client, answerer, "message/send", {"content": TEXT, "task_name": "t1"})

    [task] = (await client.get("/tasks")).json()
    if may_update:
        assert answer["result"][0]["task_id"] == task["id"]
    else:
        assert answer == rpc_error(-32603, f"update on task {task['id']} is not allowed: scripted")
        assert acp_server.requests == []


async def test_a_run_that_has_ended_meanwhile_is_not_canceled(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, resources: Resources
) -> None:
    run = await add_run(resources, await add_agent(resources), RunStatus.DUE)
    meanwhile(Operation.CANCEL, ResourceType.RUN, "UPDATE runs SET status = 'succeeded'")

    answer = await client.post(f"/runs/{run.id}/cancel")

    assert (answer.status_code, (await read_run(resources, run.id)).status) == (400, RunStatus.SUCCEEDED)


async def test_the_task_that_a_waiting_run_got_meanwhile_is_closed_with_it(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, resources: Resources
) -> None:
    agent = await add_agent(resources)
    task, run = await add_task(resources, agent), await add_run(resources, agent, RunStatus.DUE)
    meanwhile(Operation.CANCEL, ResourceType.RUN, "UPDATE runs SET task_id = :task_id", task_id=task.id)

    answer = await client.post(f"/runs/{run.id}/cancel")

    closed: dict[str, Any] = (await client.get(f"/tasks/{task.id}")).json()
    assert (answer.json()["status"], closed["status"]) == ("canceled", "CANCELED")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/spans", {"name": "s", "trace_id": "t", "start_time": "2026-01-01T00:00:00Z", "task_id": "{id}"}),
        ("/checkpoints/put", {"thread_id": "{id}", "checkpoint_id": "1", "checkpoint": {}}),
        ("/checkpoints/put-writes", {"thread_id": "{id}", "checkpoint_id": "1", "writes": []}),
    ],
)
async def test_a_task_that_is_forgotten_meanwhile_takes_nothing(
    client: httpx2.AsyncClient,
    meanwhile: Meanwhile,
    agent: Json,
    resources: Resources,
    path: str,
    body: Json,
) -> None:
    task = await create_task(client, agent)
    filled = {key: task["id"] if value == "{id}" else value for key, value in body.items()}
    meanwhile(Operation.UPDATE, ResourceType.TASK, "DELETE FROM tasks")

    answer = await client.post(path, json=filled)

    assert (answer.status_code, answer.json()["message"]) == (404, f"task '{task['id']}' not found")
    for table in ("spans", "checkpoints", "checkpoint_writes", "trackers"):
        assert list(await fetch(resources, f"SELECT 1 FROM {table}")) == []  # noqa: S608


async def test_a_span_that_became_another_tasks_meanwhile_is_not_changed(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json
) -> None:
    task, another = await create_task(client, agent), await create_task(client, agent)
    body = {
        "id": "s",
        "name": "s",
        "trace_id": "t",
        "start_time": "2026-01-01T00:00:00Z",
        "task_id": task["id"],
    }
    await client.post("/spans", json=body)
    meanwhile(Operation.UPDATE, ResourceType.TASK, "UPDATE spans SET task_id = :id", id=another["id"])

    answer = await client.patch("/spans/s", json={"name": "changed"})

    found = (await client.get("/spans/s")).json()
    assert (answer.status_code, found["name"], found["task_id"]) == (404, "s", another["id"])


@pytest.mark.parametrize("how", ["message", "change", "state", "new state"])
async def test_what_hangs_on_a_task_that_is_forgotten_meanwhile_is_not_written(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json, how: str
) -> None:
    task = await create_task(client, agent)
    of_task = {"task_id": task["id"]}
    message = (await client.post("/messages", json=of_task | {"content": TEXT})).json()
    kept: Json = of_task | {"agent_id": agent["id"], "state": {}}
    method, path, body = {
        "message": ("POST", "/messages", of_task | {"content": TEXT}),
        "change": ("PUT", f"/messages/{message['id']}", of_task | {"content": TEXT}),
        "new state": ("POST", "/states", kept),
        "state": ("PUT", "/states/{id}", kept),
    }[how]
    if how == "state":
        path = f"/states/{(await client.post('/states', json=kept)).json()['id']}"
    forget = """
        WITH gone AS (DELETE FROM messages WHERE task_id = :id) DELETE FROM tasks WHERE id = :id
    """

    meanwhile(Operation.UPDATE, ResourceType.TASK, forget, id=UUID(task["id"]))
    answer = await client.request(method, path, json=body)

    assert answer.status_code == 404
    assert (await client.get("/states")).json() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/agents/{agent_id}/deployments", {"docker_image": "x"}),
        ("/agents/{agent_id}/deployments/{deployment_id}/promote", None),
        ("/agent_api_keys", {"agent_id": "{agent_id}", "name": "x"}),
        ("/agent_api_keys/webhook-trigger", {"agent_name": "greeter", "name": "x", "forward_path": "x"}),
    ],
)
async def test_an_agent_that_is_deleted_meanwhile_gets_no_deployment_and_no_key(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json, path: str, body: Json | None
) -> None:
    made = (await client.post(f"/agents/{agent['id']}/deployments", json={"docker_image": "x"})).json()
    ids = {"{agent_id}": agent["id"], "{deployment_id}": made["id"]}
    for word, value in ids.items():
        path = path.replace(word, value)
    filled = {key: ids.get(value, value) for key, value in body.items()} if body else None
    meanwhile(Operation.UPDATE, ResourceType.AGENT, "UPDATE agents SET deleted_at = now()")

    answer = await client.post(path, json=filled)

    assert (answer.status_code, answer.json()["message"]) == (404, f"agent {agent['id']!r} not found")


async def test_a_deployment_that_is_deleted_meanwhile_is_not_promoted(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json, resources: Resources
) -> None:
    path = f"/agents/{agent['id']}/deployments"
    made = (await client.post(path, json={"docker_image": "x"})).json()
    metadata = {"deployment_id": made["id"]}
    known = registration(registration_metadata=metadata, acp_url="http://127.0.0.1:7")
    assert (await client.post("/agents/register", json=known)).status_code == 200
    meanwhile(Operation.UPDATE, ResourceType.AGENT, "UPDATE deployments SET expires_at = now()")

    answer = await client.post(f"{path}/{made['id']}/promote")

    found = await fetch(resources, "SELECT production_deployment_id FROM agents")
    assert (answer.status_code, [tuple(row.values()) for row in found]) == (400, [(None,)])


async def test_a_key_that_is_deleted_meanwhile_is_not_found(
    client: httpx2.AsyncClient, meanwhile: Meanwhile, agent: Json
) -> None:
    key = (await client.post("/agent_api_keys", json={"agent_id": agent["id"], "name": "x"})).json()
    meanwhile(Operation.DELETE, ResourceType.API_KEY, "DELETE FROM agent_api_keys")

    assert (await client.delete(f"/agent_api_keys/{key['id']}")).status_code == 404
