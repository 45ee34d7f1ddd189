"""message/send to a sync agent, answered whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx2
import pytest

from agentex.auth.authorize import Operation, ResourceType
from agentex.database import rows
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from tests.api.rpc.conftest import Send
from tests.support.acp_replies import JsonObject, Reply, text_deltas
from tests.support.acp_server import AcpServer
from tests.support.api import (
    TEXT,
    WHOLE_TEXT,
    Json,
    create_task,
    register,
    result,
    rpc,
    rpc_error,
    told_agent,
)
from tests.support.authz import ScriptedAuthz
from tests.support.messages import only_task, said, stored, text, told_task, update, word

OPEN = "only a task that is RUNNING or INTERRUPTED takes messages"


async def test_a_message_makes_a_task_and_is_answered_with_the_agents_messages(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json, acp_server: AcpServer
) -> None:
    answer = await send()

    task = (await client.get("/tasks")).json()[0]
    asked, answered = await stored(client, task["id"])
    assert answer == result([answered])
    assert answered == {
        "id": answered["id"],
        "task_id": task["id"],
        "content": text("Hello"),
        "streaming_status": "DONE",
        "created_at": answered["created_at"],
        "updated_at": answered["created_at"],
    }
    assert (asked["content"], asked["streaming_status"]) == (WHOLE_TEXT, "DONE")
    [sent] = acp_server.requests
    whole_task = (await client.get(f"/tasks/{task['id']}")).json()
    del whole_task["agents"]
    assert (sent.method, sent.headers["idempotency-key"], sent.params) == (
        "message/send",
        sent.id,
        {
            "agent": told_agent(sync_agent, acp_server.url),
            "task": whole_task,
            "content": WHOLE_TEXT,
            "stream": True,
        },
    )
    assert (task["name"], task["status"]) == (None, "RUNNING")


@pytest.mark.parametrize("path", ["/agents/name/answerer/rpc", "/agents/{id}/rpc"])
@pytest.mark.parametrize("request_id", ["seven", 2**70, None])
async def test_an_agent_is_found_by_id_and_by_name_and_the_answer_is_one_line_with_the_requests_id(
    client: httpx2.AsyncClient, sync_agent: Json, path: str, request_id: object
) -> None:
    request = {"method": "message/send", "params": {"content": TEXT}, "id": request_id}

    answer = await client.post(path.format(id=sync_agent["id"]), json=request)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.json()["id"], answer.text.count("\n"), answer.text[-1]) == (request_id, 1, "\n")


@pytest.mark.parametrize("by", ["task_id", "task_name"])
async def test_a_message_goes_into_the_task_that_is_named(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json, acp_server: AcpServer, by: str
) -> None:
    task = await create_task(client, sync_agent, name="t1", params={"depth": 3}, task_metadata={"team": "a"})

    answer = await send(**{by: task["id" if by == "task_id" else "name"]})

    assert [one["task_id"] for one in answer["result"]] == [task["id"]]
    assert acp_server.requests[0].params["task"] == task
    assert (await only_task(client))["id"] == task["id"]


async def test_a_name_that_no_task_has_makes_one_and_the_next_message_goes_into_it(
    client: httpx2.AsyncClient, send: Send
) -> None:
    first = await send(task_name="t1", task_params={"depth": 3})
    second = await send(task_name="t1")

    task = (await client.get("/tasks/name/t1")).json()
    assert {first["result"][0]["task_id"], second["result"][0]["task_id"]} == {task["id"]}
    assert task["params"] == {"depth": 3}
    assert await said(client, task["id"]) == [("user", "hi", "DONE"), ("agent", "Hello", "DONE")] * 2


async def test_params_given_now_replace_those_of_the_task(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, sync_agent, params={"depth": 3})

    await send(task_id=task["id"], task_params={"width": 4})

    read = (await client.get(f"/tasks/{task['id']}")).json()
    assert (read["params"], told_task(acp_server.requests[0])["params"]) == ({"width": 4}, {"width": 4})


async def test_ten_messages_at_once_under_a_new_name_share_one_task(
    client: httpx2.AsyncClient, send: Send
) -> None:
    answers = await asyncio.gather(*[send(task_name="t1") for _ in range(10)])

    task = await only_task(client)
    assert [answer["result"][0]["task_id"] for answer in answers] == [task["id"]] * 10
    assert len(await stored(client, task["id"])) == 20


async def test_an_interrupted_task_runs_again_with_its_next_message(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, sync_agent)
    await rpc(client, sync_agent, "task/interrupt", {"task_id": task["id"]})

    answer = await send(task_id=task["id"])

    assert (answer["error"], told_task(acp_server.requests[-1])["status"]) == (None, "RUNNING")
    assert (await only_task(client))["status"] == "RUNNING"


MESSAGES: list[tuple[list[JsonObject], list[Json]]] = [
    (text_deltas(3), [text("word0 word1 word2 ")]),
    ([word("a"), word("b")], [text("ab")]),
    (
        [update("full", 1, content=text("second")), update("full", 0, content=text("first"))],
        [text("first"), text("second")],
    ),
    (
        [update("start", None, content=text("a")), word("b", None), update("full", None, content=text("c"))],
        [text("ab"), text("c")],
    ),
    (
        [update("delta", 0, delta={"type": "data", "data_delta": part}) for part in ('{"a":', "1}")],
        [{"type": "data", "author": "agent", "style": "static", "data": {"a": 1}}],
    ),
    ([update("done", 0)], []),
]


@pytest.mark.parametrize(("updates", "contents"), MESSAGES)
async def test_updates_add_up_to_messages_in_the_order_of_their_index(
    client: httpx2.AsyncClient,
    send: Send,
    acp_server: AcpServer,
    updates: list[JsonObject],
    contents: list[Json],
) -> None:
    acp_server.script("message/send", [Reply(updates=updates)])

    answer = await send()

    kept = await stored(client, (await only_task(client))["id"])
    assert (answer["error"], [one["content"] for one in answer["result"]]) == (None, contents)
    assert kept[1:] == answer["result"]


async def test_what_postgres_cannot_store_is_replaced_in_the_answer_too(
    client: httpx2.AsyncClient, send: Send, acp_server: AcpServer
) -> None:
    acp_server.script("message/send", [Reply(updates=[update("full", content=text("a\x00b"))])])

    answer = await send()

    assert [one["content"] for one in answer["result"]] == [text("a\ufffdb")]
    assert (await stored(client, (await only_task(client))["id"]))[1:] == answer["result"]


# What the agent does, what is said of it, and what is kept of it.
PARTIAL = [word("wo"), word("rd")]
FAULTS: dict[str, tuple[Reply, str, list[str]]] = {
    "error": (Reply(error_code=-32603, error_message="no tokens"), "answered error -32603: no tokens", []),
    "500": (Reply(status=500), "answered HTTP 500", []),
    "garbage": (Reply(body="<html>"), "the answer (6 bytes) is not JSON", []),
    "wrong id": (Reply(answer_id="other"), "the answer's id is missing or not the request's", []),
    "half a line": (
        Reply(updates=PARTIAL, tail='{"jsonrpc":'),
        "the stream ended in the middle of a line",
        ["word"],
    ),
    "garbage in the stream": (
        Reply(updates=PARTIAL, tail="oops\n"),
        "the answer (4 bytes) is not JSON",
        ["word"],
    ),
    "error in the stream": (
        Reply(updates=PARTIAL, error_code=-32603),
        "answered error -32603: scripted",
        ["word"],
    ),
    "cut": (
        Reply(updates=PARTIAL, cut=True),
        "the connection was lost before the answer was complete",
        ["word"],
    ),
    "closed": (Reply(close="close"), "the connection was lost before the answer was complete", []),
    "never": (Reply(hang="before"), "no complete answer within 1 s", []),
    "never ends": (Reply(updates=PARTIAL, hang="in_stream"), "no complete answer within 1 s", ["word"]),
    "too large": (Reply(body_bytes=9_000), "the answer is larger than 4096 bytes", []),
    "unknown type": (
        Reply(updates=[*PARTIAL, update("full", 1, content={"type": "smell", "author": "agent"})]),
        "an update is not valid at full.content",
        ["word"],
    ),
    "no JSON": (
        Reply(
            updates=[
                *PARTIAL,
                update("delta", 1, delta={"type": "data", "data_delta": "{"}),
                update("done", 1),
            ]
        ),
        "the deltas of message 1 add up to no JSON object",
        ["word", "{"],
    ),
}


@pytest.fixture
async def hurried(settings: Settings, resources: Resources, authz: ScriptedAuthz) -> AsyncIterator[Settings]:
    """Settings under which an answer may take a second and 4 kB."""
    resources.settings = settings.model_copy(
        update={"answer_timeout_seconds": 1, "agent_max_answer_bytes": 4096}
    )
    async with open_resources(resources.settings, authz=authz) as opened:
        resources.acp, opened.acp = opened.acp, resources.acp
        yield resources.settings
        resources.acp, opened.acp = opened.acp, resources.acp


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.usefixtures("hurried")
async def test_however_the_agent_fails_there_is_a_typed_error_and_a_consistent_task(
    client: httpx2.AsyncClient, send: Send, acp_server: AcpServer, name: str
) -> None:
    reply, message, kept = FAULTS[name]
    acp_server.script("message/send", [reply])

    answer = await send()
    acp_server.release()

    task = await only_task(client)
    error = answer["error"]
    assert answer == rpc_error(-32603, error["message"])
    assert message in error["message"]
    assert error["message"].endswith(f"(task {task['id']} keeps what came)")
    contents = [one["content"] for one in (await stored(client, task["id"]))[1:]]
    assert [one.get("content") or one["data"]["unfinished"] for one in contents] == kept
    assert {status for _, _, status in await statuses(client, task["id"])} == {"DONE"}
    assert (task["status"], dict(acp_server.counts)) == ("RUNNING", {"message/send": 1})
    assert (await send(task_id=task["id"]))["error"] is None


async def statuses(client: httpx2.AsyncClient, task_id: str) -> list[tuple[str, str, str]]:
    return [
        (one["id"], one["content"]["type"], one["streaming_status"]) for one in await stored(client, task_id)
    ]


async def test_an_agent_that_cannot_be_reached_is_said(client: httpx2.AsyncClient) -> None:
    agent = await register(client, name="away", acp_type="sync", acp_url="http://127.0.0.1:9")

    answer = await rpc(client, agent, "message/send", {"content": TEXT})

    task = await only_task(client)
    message = "agent 127.0.0.1:9, message/send: no connection: Connect call failed"
    assert answer["error"]["code"] == -32603
    assert answer["error"]["message"].startswith(message)
    assert await said(client, task["id"]) == [("user", "hi", "DONE")]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "content: Field required"),
        ({"content": None}, "content: Input should be"),
        ({"content": {"type": "smell"}}, "content: Input tag 'smell' found using 'type' does not match"),
        ({"content": TEXT | {"author": "nobody"}}, "content.text.author: Input should be 'user' or 'agent'"),
        ({"content": TEXT, "stream": "yes"}, "stream is 'yes': Input should be a valid boolean"),
        ({"content": TEXT, "task_id": "t1"}, "task_id is 't1': Input should be a valid UUID"),
        ({"content": TEXT, "task_name": ""}, "task_name is '': String should have at least 1 character"),
        ({"content": TEXT, "task_params": []}, "task_params: Input should be a valid dictionary"),
        (
            {"content": TEXT, "task_name": "t", "task_id": str(uuid4())},
            "give task_id or task_name, and not both",
        ),
    ],
)
async def test_invalid_params_are_named(
    client: httpx2.AsyncClient, sync_agent: Json, acp_server: AcpServer, params: Json, message: str
) -> None:
    answer = await rpc(client, sync_agent, "message/send", params)

    assert answer == rpc_error(-32602, answer["error"]["message"])
    assert answer["error"]["message"].startswith(f"params of message/send: {message}")
    assert ((await client.get("/tasks")).json(), acp_server.requests) == ([], [])


@pytest.mark.parametrize("verb", ["complete", "fail", "cancel"])
@pytest.mark.parametrize("by", ["task_id", "task_name"])
async def test_a_closed_task_takes_no_message(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json, acp_server: AcpServer, verb: str, by: str
) -> None:
    task = await create_task(client, sync_agent, name="t1")
    status = (await client.post(f"/tasks/{task['id']}/{verb}")).json()["status"]

    answer = await send(**{by: task["id" if by == "task_id" else "name"]})

    assert answer == rpc_error(-32603, f"task {task['id']} is {status}; {OPEN}")
    assert (await stored(client, task["id"]), acp_server.requests) == ([], [])


@pytest.mark.parametrize("by", ["task_id", "task_name"])
async def test_another_agents_task_takes_no_message(
    client: httpx2.AsyncClient, send: Send, agent: Json, by: str
) -> None:
    task = await create_task(client, agent, name="t1")

    answer = await send(**{by: task["id" if by == "task_id" else "name"]})

    assert answer == rpc_error(-32603, f"task {task['id']} belongs to another agent than 'answerer'")


async def test_an_unknown_task_is_named(client: httpx2.AsyncClient, send: Send) -> None:
    task_id = str(uuid4())

    assert await send(task_id=task_id) == rpc_error(-32603, f"task '{task_id}' not found")


@pytest.mark.parametrize(
    ("operation", "kind", "params"),
    [
        (Operation.EXECUTE, ResourceType.AGENT, {}),
        (Operation.CREATE, ResourceType.TASK, {}),
        (Operation.CREATE, ResourceType.TASK, {"task_name": "new"}),
        (Operation.UPDATE, ResourceType.TASK, {"task_name": "t1"}),
    ],
)
async def test_who_may_not_sends_nothing(
    client: httpx2.AsyncClient,
    send: Send,
    sync_agent: Json,
    acp_server: AcpServer,
    authz: ScriptedAuthz,
    operation: Operation,
    kind: ResourceType,
    params: Json,
) -> None:
    task = await create_task(client, sync_agent, name="t1")
    authz.deny = {(operation, kind)}

    answer = await send(**params)

    subject = {"agent": sync_agent["id"], "task": task["id"] if params == {"task_name": "t1"} else "*"}[kind]
    assert answer == rpc_error(-32603, f"{operation} on {kind} {subject} is not allowed: scripted")
    assert (await stored(client, task["id"]), acp_server.requests) == ([], [])
    assert (await only_task(client))["id"] == task["id"]


async def test_names_of_tasks_are_each_accounts_own(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json, acp_server: AcpServer
) -> None:
    task = await create_task(client, sync_agent, name="t1")
    other = {"x-test-account": "other"}
    body = {"name": "answerer", "description": "", "acp_type": "sync", "acp_url": acp_server.url}
    theirs = (await client.post("/agents/register", json=body, headers=other)).json()

    by_name = await rpc(client, theirs, "message/send", {"content": TEXT, "task_name": "t1"}, headers=other)
    by_id = await rpc(client, theirs, "message/send", {"content": TEXT, "task_id": task["id"]}, headers=other)

    assert by_name["result"][0]["task_id"] != task["id"]
    assert by_id == rpc_error(-32603, f"task '{task['id']}' not found")
    assert await stored(client, task["id"]) == []


async def test_no_connection_is_held_while_an_answer_is_awaited(
    client: httpx2.AsyncClient, send: Send, acp_server: AcpServer, resources: Resources
) -> None:
    acp_server.script("message/send", [Reply(hang="before")], repeat=True)
    asked = [asyncio.create_task(send()) for _ in range(resources.settings.database_pool_size + 5)]
    await acp_server.is_hanging(len(asked))

    in_use = resources.db.engine.pool.checkedout()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - of QueuePool
    transactions = await rows(
        resources.db,
        """
        SELECT query FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
            AND backend_type = 'client backend'
        """,
    )
    acp_server.release()

    assert (in_use, list(transactions)) == (0, [])
    assert [answer["error"] for answer in await asyncio.gather(*asked)] == [None] * len(asked)


async def test_an_agent_that_moves_is_called_where_it_is_now(
    client: httpx2.AsyncClient, send: Send, sync_agent: Json
) -> None:
    await send()
    async with AcpServer() as moved:
        await register(client, name="answerer", acp_type="sync", acp_url=moved.url)
        await send()

        assert dict(moved.counts) == {"message/send": 1}


async def test_an_agent_is_told_all_that_it_registered_with(
    client: httpx2.AsyncClient, acp_server: AcpServer
) -> None:
    agent = await register(
        client,
        acp_type="sync",
        acp_url=acp_server.url,
        agent_input_type="json",
        registration_metadata={"agent_card": {"a": [1]}},
    )

    await rpc(client, agent, "message/send", {"content": TEXT})

    assert acp_server.requests[0].params["agent"] == told_agent(agent, acp_server.url)
