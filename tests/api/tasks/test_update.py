"""PUT /tasks/{id} and by name: metadata is replaced, params are merged, and nothing is lost of either."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from agentex.app import create_app
from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources, open_resources
from tests.api.ledger.stage import fetch
from tests.api.tasks.wire import with_agent
from tests.support.api import UNKNOWN_ID, Json, create_task, problem
from tests.support.authz import ScriptedAuthz

PARAMS: Json = {"model": "small", "limits": {"tokens": 10, "seconds": 5}}
METADATA: Json = {"team": "a", "tags": ["x"]}
OTHER_ACCOUNT = {"x-test-account": "other"}


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent, name="a/b", params=PARAMS, task_metadata=METADATA)


@pytest.mark.parametrize("by", ["id", "name"])
@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"task_metadata": {"team": "b"}}, {"task_metadata": {"team": "b"}}),
        ({"task_metadata": {}}, {"task_metadata": {}}),
        ({"merge_params": {"model": "large"}}, {"params": {**PARAMS, "model": "large"}}),
        (
            {"merge_params": {"limits": {"tokens": 20}, "new": [1]}},
            {"params": {**PARAMS, "limits": {"tokens": 20}, "new": [1]}},
        ),
        ({"merge_params": {"model": None}}, {"params": {**PARAMS, "model": None}}),
        (
            {"merge_params": {"model": "large"}, "task_metadata": {"team": "b"}},
            {"params": {**PARAMS, "model": "large"}, "task_metadata": {"team": "b"}},
        ),
        (
            {"merge_params": {}, "task_metadata": {"team": "b"}},
            {"task_metadata": {"team": "b"}},
        ),
    ],
)
async def test_what_is_given_changes_and_the_rest_stays(
    client: httpx2.AsyncClient, agent: Json, task: Json, by: str, body: Json, changed: Json
) -> None:
    path = f"/tasks/{task['id']}" if by == "id" else "/tasks/name/a%2Fb"

    response = await client.put(path, json=body)

    updated = response.json()
    assert (response.status_code, updated["updated_at"] > task["updated_at"]) == (200, True)
    assert updated == {**task, **changed, "updated_at": updated["updated_at"]}
    assert (await client.get(path)).json() == with_agent(updated, agent)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"task_metadata": None},
        {"merge_params": None, "task_metadata": None},
        {"merge_params": {}},
        {"x": 1},
    ],
    ids=str,
)
async def test_null_and_absent_change_nothing(client: httpx2.AsyncClient, task: Json, body: Json) -> None:
    response = await client.put(f"/tasks/{task['id']}", json=body)

    assert (response.status_code, response.json()) == (200, task)


async def test_a_task_without_params_gets_them(client: httpx2.AsyncClient, agent: Json) -> None:
    task = await create_task(client, agent)

    updated = (await client.put(f"/tasks/{task['id']}", json={"merge_params": {"n": 1}})).json()

    assert updated == {**task, "params": {"n": 1}, "updated_at": updated["updated_at"]}


async def test_a_closed_task_is_changed_like_any_other(client: httpx2.AsyncClient, task: Json) -> None:
    closed = (await client.post(f"/tasks/{task['id']}/complete")).json()

    updated = (await client.put(f"/tasks/{task['id']}", json={"task_metadata": {"seen": True}})).json()

    assert updated == {**closed, "task_metadata": {"seen": True}, "updated_at": updated["updated_at"]}


async def test_of_changes_at_once_none_is_lost(client: httpx2.AsyncClient, task: Json) -> None:
    path = f"/tasks/{task['id']}"
    for n in range(15):
        pair: list[Json] = [{"merge_params": {f"a{n}": n}}, {"task_metadata": {"n": n}}]
        answers = await asyncio.gather(*[client.put(path, json=body) for body in pair])
        assert [answer.status_code for answer in answers] == [200, 200]
        found = (await client.get(path)).json()
        assert (found["params"][f"a{n}"], found["task_metadata"]) == (n, {"n": n})


async def test_of_thirty_merges_at_once_none_is_lost(client: httpx2.AsyncClient, task: Json) -> None:
    path = f"/tasks/{task['id']}"

    await asyncio.gather(*[client.put(path, json={"merge_params": {f"k{n}": n}}) for n in range(30)])

    expected = {**PARAMS, **{f"k{n}": n for n in range(30)}}
    assert (await client.get(path)).json()["params"] == expected


async def test_a_change_and_a_close_at_once_both_happen(client: httpx2.AsyncClient, agent: Json) -> None:
    for _ in range(10):
        task = await create_task(client, agent)
        path = f"/tasks/{task['id']}"

        await asyncio.gather(
            client.put(path, json={"task_metadata": {"n": 1}, "merge_params": {"m": 1}}),
            client.post(f"{path}/fail", json={"reason": "broken"}),
        )

        found = (await client.get(path)).json()
        changed = {"task_metadata": {"n": 1}, "params": {"m": 1}}
        failed = {"status": "FAILED", "status_reason": "broken", "updated_at": found["updated_at"]}
        assert found == with_agent({**task, **changed, **failed}, agent)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"task_metadata": []}, "task_metadata: Input should be a valid dictionary"),
        ({"merge_params": "x"}, "merge_params is 'x': Input should be a valid dictionary"),
        ([], "body: Input should be a valid dictionary or object to extract fields from"),
        (
            {"task_metadata": {"a": "\x00"}},
            "body.task_metadata.a: holds the character NUL (\\u0000), which cannot be stored; leave it out",
        ),
    ],
    ids=["metadata", "params", "body", "NUL"],
)
async def test_what_is_no_change_is_422(
    client: httpx2.AsyncClient, task: Json, body: Any, message: str
) -> None:
    path = f"/tasks/{task['id']}"

    response = await client.put(path, json=body)

    assert (response.status_code, response.json()) == (422, problem(path, 422, "invalid-input", message))


async def test_params_do_not_grow_without_end(
    resources: Resources, authz: ScriptedAuthz, agent: Json
) -> None:
    settings = resources.settings.model_copy(update={"max_task_params_bytes": 100})
    async with open_resources(settings, authz=authz) as small:
        app = create_app(settings, resources=small)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as client:
            task = await create_task(client, agent, params={"a": "x" * 50})
            path = f"/tasks/{task['id']}"
            fits = await client.put(path, json={"merge_params": {"b": "y" * 20}})
            response = await client.put(path, json={"merge_params": {"c": "z" * 20}})
            other = await client.put(path, json={"task_metadata": {"c": "z" * 200}})

    message = f"with merge_params the params of task {task['id']} exceed 100 bytes"
    assert (response.status_code, response.json()) == (413, problem(path, 413, "payload-too-large", message))
    assert (fits.status_code, other.json()["params"]) == (200, {"a": "x" * 50, "b": "y" * 20})


@pytest.mark.parametrize("path", [f"/tasks/{UNKNOWN_ID}", "/tasks/nonsense", "/tasks/name/nothing"])
async def test_a_task_that_is_none_is_404(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.put(path, json={"task_metadata": {}})

    message = f"task '{path.rpartition('/')[2]}' not found"
    assert (response.status_code, response.json()) == (404, problem(path, 404, "not-found", message))


@pytest.mark.parametrize("by", ["id", "name"])
async def test_another_account_changes_nothing(client: httpx2.AsyncClient, task: Json, by: str) -> None:
    path = f"/tasks/{task['id']}" if by == "id" else "/tasks/name/a%2Fb"

    response = await client.put(path, json={"task_metadata": {}}, headers=OTHER_ACCOUNT)

    assert (response.status_code, (await client.get(path)).json()["task_metadata"]) == (404, METADATA)


@pytest.mark.parametrize("body", [{"task_metadata": {}}, {}], ids=str)
async def test_who_may_read_but_not_change_gets_403(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz, body: Json
) -> None:
    authz.deny = {(Operation.UPDATE, ResourceType.TASK)}
    path = f"/tasks/{task['id']}"

    response = await client.put(path, json=body)

    message = f"update on task {task['id']} is not allowed: scripted"
    assert (response.status_code, response.json()) == (403, problem(path, 403, "forbidden", message))


async def test_a_task_that_is_deleted_meanwhile_is_404(
    client: httpx2.AsyncClient, task: Json, authz: ScriptedAuthz, resources: Resources
) -> None:
    async def delete(_: object) -> None:
        if authz.asked[-1] == (Operation.UPDATE, ResourceType.TASK):
            authz.while_asked = None
            await fetch(resources, "UPDATE tasks SET status = 'DELETED'")

    authz.while_asked = delete
    response = await client.put(f"/tasks/{task['id']}", json={"task_metadata": {}})

    kept = await fetch(resources, "SELECT task_metadata->>'team' AS team FROM tasks")
    assert (response.status_code, kept[0]["team"]) == (404, "a")
