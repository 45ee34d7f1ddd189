"""GET /tasks/{id}/query/{name}: asked of a workflow that an agent has under the task's id."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import pytest
from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from agentex.agents.models import AcpType, Agent
from agentex.app import create_app
from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from agentex.tasks import query
from agentex.temporal import connect
from tests.api.ledger.stage import add_task
from tests.support.api import UNKNOWN_ID, problem
from tests.support.authz import ScriptedAuthz
from tests.temporal.conversation import STATE, Conversation


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(resources.settings, resources=resources)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as opened:
        yield opened


@pytest.fixture
async def task_id(resources: Resources, echo: Agent) -> str:
    return str((await add_task(resources, echo)).id)


@pytest.fixture
async def conversation(
    resources: Resources, task_id: str
) -> AsyncIterator[WorkflowHandle[Conversation, None]]:
    """The workflow of that task, with its worker."""
    temporal = await connect(resources.settings)
    queue = f"{resources.settings.temporal_task_queue}-agent"
    async with Worker(temporal, task_queue=queue, workflows=[Conversation]):
        handle = await temporal.start_workflow(
            Conversation.run, id=task_id, task_queue=queue, run_timeout=timedelta(minutes=2)
        )
        yield handle


@pytest.mark.usefixtures("conversation")
@pytest.mark.parametrize(
    ("name", "path", "result"),
    [("state", "state", STATE), ("nothing", "nothing", None), ("a/b c?", "a%2Fb%20c%3F", 1)],
)
async def test_the_workflow_answers(
    client: httpx2.AsyncClient, task_id: str, name: str, path: str, result: object
) -> None:
    response = await client.get(f"/tasks/{task_id}/query/{path}")

    assert response.status_code == 200, response.text
    assert response.json() == {"task_id": task_id, "query": name, "result": result}


async def test_a_workflow_that_has_ended_answers_too(
    client: httpx2.AsyncClient, task_id: str, conversation: WorkflowHandle[Conversation, None]
) -> None:
    await conversation.signal(Conversation.end)
    await conversation.result()

    response = await client.get(f"/tasks/{task_id}/query/state")

    assert (response.status_code, response.json()["result"]) == (200, STATE)


@pytest.mark.usefixtures("conversation")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mood", "query 'mood' of task {id} failed: Query handler for 'mood' expected but not found"),
        ("broken", "query 'broken' of task {id} failed: no state yet"),
        ("number", "the result of query 'number' of task {id} is not JSON, or is nested too deep"),
        ("secret", "the result of query 'secret' of task {id} is not JSON but 'binary/plain'"),
        ("long", "the result of query 'long' of task {id} is larger than 1000 bytes"),
    ],
)
async def test_a_query_that_has_no_answer_is_400(
    client: httpx2.AsyncClient, task_id: str, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr(query, "MAX_RESULT_BYTES", 1_000)
    path = f"/tasks/{task_id}/query/{name}"

    response = await client.get(path)

    message: str = response.json()["message"]
    assert message.startswith(said.format(id=task_id))
    assert (response.status_code, response.json()) == (400, problem(path, 400, "bad-request", message))


async def test_a_task_without_a_workflow_is_404(client: httpx2.AsyncClient, task_id: str) -> None:
    path = f"/tasks/{task_id}/query/state"

    response = await client.get(path)

    expected = problem(path, 404, "not-found", f"task '{task_id}' has no workflow in Temporal")
    assert (response.status_code, response.json()) == (404, expected)


async def test_a_sync_agent_has_no_workflows(
    client: httpx2.AsyncClient, resources: Resources, answering: Agent
) -> None:
    task = await add_task(resources, answering)
    path = f"/tasks/{task.id}/query/state"

    response = await client.get(path)

    message = "agent 'answering' is sync: only tasks of an agent of Temporal type have a workflow"
    assert (answering.acp_type, response.status_code) == (AcpType.SYNC, 400)
    assert response.json() == problem(path, 400, "bad-request", message)


@pytest.mark.usefixtures("conversation")
async def test_another_account_and_who_may_not_read_learn_nothing(
    client: httpx2.AsyncClient, task_id: str, authz: ScriptedAuthz
) -> None:
    path = f"/tasks/{task_id}/query/state"

    other = await client.get(path, headers={"x-test-account": "other"})
    authz.deny = {(Operation.READ, ResourceType.TASK)}
    denied = await client.get(path)
    unknown = await client.get(f"/tasks/{UNKNOWN_ID}/query/state")

    assert [answer.status_code for answer in (other, denied, unknown)] == [404, 404, 404]


async def test_a_name_that_is_too_long_is_422(client: httpx2.AsyncClient, task_id: str) -> None:
    response = await client.get(f"/tasks/{task_id}/query/{'x' * 256}")

    assert response.status_code == 422
    assert response.json()["message"].startswith("query_name is 'xxx")


async def test_a_worker_that_is_gone_is_503_within_two_seconds(
    client: httpx2.AsyncClient, resources: Resources, task_id: str
) -> None:
    temporal = await connect(resources.settings)
    queue = f"{resources.settings.temporal_task_queue}-nobody"
    handle = await temporal.start_workflow(Conversation.run, id=task_id, task_queue=queue)

    await _is_503_in_time(client, task_id)

    await handle.terminate()


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
async def test_a_temporal_that_is_away_is_503_within_two_seconds(
    settings: Settings, authz: ScriptedAuthz, task_id: str, hangs: bool
) -> None:
    # The kernel accepts the connection, and nobody takes it up; closed, it refuses.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if not hangs:
            listening.close()
        away = settings.model_copy(update={"temporal_address": f"127.0.0.1:{port}"})
        async with open_resources(away, authz=authz) as resources:
            transport = httpx2.ASGITransport(app=create_app(away, resources=resources))
            async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as client:
                await _is_503_in_time(client, task_id)


async def _is_503_in_time(client: httpx2.AsyncClient, task_id: str) -> None:
    path, began = f"/tasks/{task_id}/query/state", time.monotonic()

    response = await client.get(path)

    message = f"query 'state' of task {task_id}: Temporal, or the worker of its workflow, does not answer"
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json() == problem(path, 503, "unavailable", message)
    # The limit is 2 s; a loaded machine is no fault here, and without a limit it would be 10.
    assert time.monotonic() - began < 5
