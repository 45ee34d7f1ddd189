"""What an entry says, when it is left, and what never stands in one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx2
import pytest
from prometheus_client import REGISTRY

from agentex.audit import service
from agentex.audit.models import AuditEntry
from agentex.auth.authorize import Operation, ResourceType
from agentex.auth.principal import Principal
from agentex.cli import keys
from agentex.database import Database
from agentex.dev.ports import free_port
from agentex.errors import Unauthorized
from agentex.resources import Resources
from agentex.settings import Settings
from agentex.web import audited
from tests.api.app.test_every_route import Asked
from tests.api.app.test_every_route import world as world  # noqa: PLC0414 - a fixture, found by its name
from tests.api.audit.conftest import audited_app
from tests.api.audit.entries import entries, last_entry
from tests.api.audit.test_every_mutation import MUTATIONS
from tests.api.conftest import shared_app
from tests.api.ledger.stage import fetch
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, UNKNOWN_ID, Json, create_task, register
from tests.support.asgi import Connection
from tests.support.authz import ScriptedAuthz

MARK = "marked-secret-7f3a"


def lost() -> float:
    return REGISTRY.get_sample_value("agentex_audit_entries_lost_total") or 0


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent)


async def post(client: httpx2.AsyncClient, task: Json) -> httpx2.Response:
    return await client.post("/messages", json={"task_id": task["id"], "content": TEXT})


async def call(client: httpx2.AsyncClient, agent: Json, method: str, params: Json) -> Json:
    answer = await client.post(f"/agents/{agent['id']}/rpc", json={"method": method, "params": params})
    assert answer.status_code == 200
    return answer.json()


async def test_an_entry_says_who_did_what_to_which_object_from_where(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    headers = {"user-agent": "x" * 300, "x-request-id": "req-1", "x-test-user": "alice"}
    body = {"task_id": task["id"], "content": TEXT}
    answer = await client.post("/messages", json=body, headers=headers)

    entry = (await entries(resources))[-1]
    assert entry.keys() == AuditEntry.model_fields.keys()
    assert entry == {
        **entry,
        "account_id": "default",
        "principal": "user:alice",
        "operation": "create_message",
        "rpc_method": None,
        "resource_type": "message",
        "resource_id": answer.json()["id"],
        "agent_id": None,
        "outcome": "done",
        "status": 200,
        "request_id": "req-1",
        "address": "203.0.113.7",
        "user_agent": "x" * 200,
    }


async def test_who_is_not_known_is_anonymous(
    client: httpx2.AsyncClient,
    resources: Resources,
    task: Json,
    authz: ScriptedAuthz,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(headers: Mapping[str, str]) -> Principal:
        raise Unauthorized

    monkeypatch.setattr(authz, "authenticate", refuse)
    assert (await post(client, task)).status_code == 401

    entry = await last_entry(resources)
    assert (entry["principal"], entry["outcome"], entry["status"]) == ("anonymous", "refused", 401)


@pytest.mark.parametrize(
    ("body", "status"),
    [("{", 422), ("{}", 422), (json.dumps({"task_id": UNKNOWN_ID, "content": TEXT}), 404)],
)
async def test_who_is_refused_is_named_also_before_the_body_is_read(
    client: httpx2.AsyncClient, resources: Resources, body: str, status: int
) -> None:
    headers = {"content-type": "application/json", "x-test-account": "other"}
    assert (await client.post("/messages", content=body, headers=headers)).status_code == status

    entry = await last_entry(resources)
    assert (entry["account_id"], entry["principal"]) == ("other", "user:tester")
    assert (entry["outcome"], entry["status"], entry["resource_id"]) == ("refused", status, None)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/nothing"), ("POST", "/runs"), ("OPTIONS", "/messages")]
)
async def test_what_no_route_takes_leaves_none(
    client: httpx2.AsyncClient, resources: Resources, method: str, path: str
) -> None:
    assert (await client.request(method, path)).status_code in {404, 405}
    assert await entries(resources) == []


async def test_a_fault_is_an_entry_too(
    client: httpx2.AsyncClient,
    resources: Resources,
    task: Json,
    authz: ScriptedAuthz,
) -> None:
    async def fail(_: object) -> None:
        raise ArithmeticError("nobody foresaw it")

    authz.while_asked = fail
    assert (await post(client, task)).status_code == 500
    entry = await last_entry(resources)
    assert (entry["principal"], entry["outcome"], entry["status"]) == ("user:tester", "failed", 500)


async def test_a_denied_call_of_an_agent_is_denied_though_it_is_answered_200(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, task: Json, authz: ScriptedAuthz
) -> None:
    authz.deny = frozenset({(Operation.UPDATE, ResourceType.TASK)})
    answer = await call(client, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    assert answer["error"]

    entry = await last_entry(resources)
    assert (entry["outcome"], entry["status"]) == ("denied", 200)
    assert (entry["resource_type"], entry["resource_id"]) == ("task", task["id"])
    assert str(entry["agent_id"]) == agent["id"]


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [
        (MARK, {}, ("unknown", "refused")),
        ("task/create", {"name": 7}, ("task/create", "refused")),
        ("message/send", {"content": TEXT}, ("message/send", "refused")),
    ],
)
async def test_a_refused_call_of_an_agent_is_refused(
    client: httpx2.AsyncClient,
    resources: Resources,
    agent: Json,
    method: str,
    params: Json,
    told: tuple[str, str],
) -> None:
    assert (await call(client, agent, method, params))["error"]
    entry = await last_entry(resources)
    assert (entry["rpc_method"], entry["outcome"]) == told
    assert (entry["resource_type"], entry["resource_id"]) == ("agent", agent["id"])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_an_agent_that_is_away(
    client: httpx2.AsyncClient, resources: Resources, stream: bool
) -> None:
    agent = await register(client, name="sync", acp_type="sync", acp_url=f"http://127.0.0.1:{free_port()}")
    body = {"method": "message/send", "params": {"content": TEXT, "stream": stream}}
    answer = await client.post(f"/agents/{agent['id']}/rpc", json=body)
    assert '"error":{' in answer.text

    entry = await last_entry(resources)
    # What is streamed had begun well.
    assert (entry["outcome"], entry["status"]) == ("done" if stream else "failed", 200)
    tasks = await fetch(resources, "SELECT id FROM tasks")
    assert (entry["resource_type"], entry["resource_id"]) == ("task", str(tasks[0]["id"]))


async def test_what_is_streamed_has_its_entry_when_it_begins(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer
) -> None:
    agent = await register(client, name="sync", acp_type="sync", acp_url=acp_server.url)
    body = {"method": "message/send", "params": {"content": TEXT, "stream": True}}
    before = len(await entries(resources))
    async with Connection(audited_app(), f"/agents/{agent['id']}/rpc", body) as connection:
        await connection.line()
        assert len(await entries(resources)) == before + 1
        await connection.rest()
    assert len(await entries(resources)) == before + 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(204, "done"), (401, "refused"), (403, "denied"), (404, "refused"), (499, "failed"), (503, "failed")],
)
def test_outcomes(status: int, outcome: str) -> None:
    assert audited.outcome_of(status) == outcome


async def test_no_answer_goes_out_before_its_entry_is_written(
    client: httpx2.AsyncClient, resources: Resources, task: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_write = asyncio.Event(), asyncio.Event()

    async def slow(db: Database, given: Sequence[service.Entry]) -> Sequence[None]:
        writing.set()
        await may_write.wait()
        return await service.add(db, given)

    monkeypatch.setattr(audited, "add", slow)
    posting = asyncio.create_task(post(client, task))
    await writing.wait()
    # The message is there, and nobody has been told so.
    assert len(await fetch(resources, "SELECT 1 FROM messages")) == 1
    assert not posting.done()
    may_write.set()
    assert (await posting).status_code == 200


async def test_requests_at_the_same_time_share_their_statements(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    before = len(await entries(resources))
    answers = await asyncio.gather(*[post(client, task) for _ in range(30)])

    found = (await entries(resources))[before:]
    assert {entry["resource_id"] for entry in found} == {answer.json()["id"] for answer in answers}
    written = await fetch(
        resources,
        "SELECT count(DISTINCT xmin::text) AS n FROM audit_entries WHERE operation = 'create_message'",
    )
    assert written[0]["n"] < 30


@asynccontextmanager
async def refusing(resources: Resources) -> AsyncGenerator[None]:
    """A database that takes no entry."""
    await fetch(resources, "ALTER TABLE audit_entries ADD CONSTRAINT none CHECK (false) NOT VALID")
    try:
        yield
    finally:
        await fetch(resources, "ALTER TABLE audit_entries DROP CONSTRAINT none")


async def test_an_entry_that_is_refused_is_counted_and_logged_and_what_was_done_is_answered(
    client: httpx2.AsyncClient, resources: Resources, task: Json, caplog: pytest.LogCaptureFixture
) -> None:
    before = lost()
    async with refusing(resources):
        answer = await post(client, task)

    assert answer.status_code == 200
    assert lost() == before + 1
    (record,) = [one for one in caplog.records if getattr(one, "action", "") == "audit.lost"]
    assert record.levelno == logging.ERROR
    told = (record.__dict__["audit_operation"], record.__dict__["audit_resource_id"])
    assert told == ("create_message", answer.json()["id"])


def marked(body: Json) -> Json:
    """The body with secrets for its texts, where they do not name something, and with one more."""
    texts = {key: MARK for key in ("description", "input", "status_reason") if key in body}
    content = {"content": TEXT | {"content": MARK}} if "content" in body else {}
    params = {"params": marked(body["params"])} if "params" in body else {}
    return {**body, **texts, **content, **params, "secret": MARK, "state": {"secret": MARK}}


async def test_nothing_secret_stands_in_any_column(
    client: httpx2.AsyncClient, resources: Resources, world: dict[str, str]
) -> None:
    names: tuple[str, ...] = ("authorization", "x-api-key", "x-agent-api-key", "cookie", "x-secret")
    headers = httpx2.Headers([(name, MARK) for name in names])
    queried = httpx2.AsyncClient(
        transport=client._transport,  # pyright: ignore[reportPrivateUsage] - the same app
        base_url=client.base_url,
        headers=headers,
        params={"secret": MARK, "agent_id": world["agent_id"]},
    )
    for asked in MUTATIONS:
        body = marked(asked.body) if asked.body is not None else None
        await Asked(asked.method, asked.path, body).of(queried, world)
    # A key in the place of an id.
    await queried.delete(f"/agent_api_keys/{MARK}")
    await queried.put(f"/messages/{MARK}", json={})

    found = await entries(resources)
    assert len(found) > len(MUTATIONS)
    assert MARK not in json.dumps(found, default=str)


async def test_what_cannot_be_stored_is_left_out_of_a_name(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    assert (await client.delete("/tasks/name/a%00b" + "c" * 300)).status_code in {404, 422}
    entry = await last_entry(resources)
    assert entry["resource_id"] == "a\ufffdb" + "c" * 197


async def test_without_an_audit_nothing_is_written(
    client: httpx2.AsyncClient, resources: Resources, task: Json
) -> None:
    before = await entries(resources)
    app = shared_app()
    app.state.resources = resources
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://agentex.test"
    ) as silent:
        assert (await post(silent, task)).status_code == 200
    assert await entries(resources) == before


async def test_a_key_that_is_made_on_the_command_line_leaves_an_entry(
    resources: Resources, settings: Settings
) -> None:
    holder = keys.Holder("default", service_account="ci")
    made = await asyncio.to_thread(keys.create, settings, holder, "ci", keys.Limits())

    (key,) = await fetch(resources, "SELECT id FROM api_keys")
    entry = await last_entry(resources)
    assert entry == {
        "account_id": "default",
        "principal": "agentex keys create",
        "operation": "keys.create",
        "rpc_method": None,
        "resource_type": "api_key",
        "resource_id": str(key["id"]),
        "agent_id": None,
        "outcome": "done",
        "status": None,
        "address": "command line",
        "user_agent": None,
    }
    assert made[4:] not in json.dumps(entry)
