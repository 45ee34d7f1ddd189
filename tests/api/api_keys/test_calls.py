"""What agents are called with: their own key, opened only for the call, and from nobody else."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest
from pydantic import SecretStr

from agentex.acp.client import AcpClient
from agentex.agents.models import AcpType, Agent
from agentex.auth.rules import Role
from agentex.errors import SecretUnreadable
from agentex.executors.base import Lane
from agentex.hooks import fill_hooks
from agentex.resources import Resources
from agentex.runs.dispatch import Dispatch
from agentex.runs.launch import Launch
from agentex.runs.models import Run, RunStatus
from agentex.runs.pages import PageRef
from agentex.runs.stop import stop_at_agent
from agentex.sealing import seal
from agentex.settings import Settings
from tests.api.ledger.stage import BATCH, add_agent, add_schedule, fetch, open_run, read_run
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, Json, registration
from tests.support.keys import bearer, key_of, of_agent

OWN = "x-agent-api-key"


def sent(server: AcpServer) -> list[tuple[str, str | None]]:
    """What arrived, with the key that it carried."""
    return [(request.method, request.headers.get(OWN)) for request in server.requests]


async def registered(client: httpx2.AsyncClient, key: str, server: AcpServer, **changes: object) -> Json:
    body = registration(acp_url=server.url, **changes)
    response = await client.post("/agents/register", json=body, headers=of_agent(key))
    assert response.status_code == 200, response.text
    return response.json()


async def call(
    client: httpx2.AsyncClient, key: str, agent: Json, method: str, params: Json
) -> httpx2.Response:
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    headers = bearer(key) | {"x-team": "blue"}
    return await client.post(f"/agents/{agent['id']}/rpc", json=request, headers=headers)


@asynccontextmanager
async def another_secret_key(resources: Resources) -> AsyncGenerator[None]:
    """As after a change of AGENTEX_SECRET_KEY that has left the old one out."""
    key = SecretStr(base64.b64encode(secrets.token_bytes(32)).decode())
    before = resources.acp
    async with AcpClient(resources.settings.model_copy(update={"secret_key": key})) as resources.acp:
        yield
    resources.acp = before


async def test_an_agent_is_called_with_its_own_key(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer, editor: str
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    agent = await registered(client, key, acp_server)
    task = (await call(client, editor, agent, "task/create", {})).json()["result"]
    await call(client, editor, agent, "event/send", {"task_id": task["id"], "content": TEXT})
    await call(client, editor, agent, "task/interrupt", {"task_id": task["id"]})

    methods = ["task/create", "event/send", "task/interrupt"]
    assert sent(acp_server) == [(method, key) for method in methods]
    assert [request.headers["x-team"] for request in acp_server.requests] == ["blue"] * 3
    assert editor not in str(acp_server.requests)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_sync_agent_is_called_with_its_own_key(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer, editor: str, stream: bool
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    agent = await registered(client, key, acp_server, acp_type="sync")
    await call(client, editor, agent, "message/send", {"content": TEXT, "stream": stream})
    assert sent(acp_server) == [("message/send", key)]


async def test_an_agent_without_a_key_is_called_without_one_whatever_its_caller_sends(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer, editor: str
) -> None:
    agent = await add_agent(resources, acp_url=acp_server.url)
    request: Json = {"jsonrpc": "2.0", "id": 7, "method": "task/create", "params": {}}
    await client.post(f"/agents/{agent.id}/rpc", json=request, headers=of_agent(editor))
    assert sent(acp_server) == [("task/create", None)]
    assert editor not in str(acp_server.requests)


async def test_the_first_key_of_an_agent_is_what_it_is_called_with(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer, editor: str
) -> None:
    body = registration(acp_url=acp_server.url)
    agent = (await client.post("/agents/register", json=body, headers=bearer(editor))).json()
    await call(client, editor, agent, "task/create", {})
    assert sent(acp_server) == [("task/create", agent["agent_api_key"])]


async def test_an_agent_that_cannot_be_called_is_named_with_what_to_do_and_nothing_is_written(
    client: httpx2.AsyncClient, resources: Resources, acp_server: AcpServer, editor: str
) -> None:
    key = await key_of(resources, "agent:greeter", Role.AGENT)
    agent = await registered(client, key, acp_server, acp_type="sync")
    for method, params in (("message/send", {"content": TEXT}), ("task/create", {})):
        async with another_secret_key(resources):
            answer = await call(client, editor, agent, method, params)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:agentex:problem:secret-unreadable")
        assert "AGENTEX_SECRET_KEY" in answer.json()["message"]
        assert key not in answer.text
    assert (sent(acp_server), list(await fetch(resources, "SELECT 1 FROM tasks"))) == ([], [])


async def test_a_key_is_opened_once_and_shown_by_nothing(
    resources: Resources, acp_server: AcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentex.acp import client as acp_client
    from agentex.acp.messages import AcpCall

    opened: list[str] = []
    unseal = acp_client.unseal

    def counted(settings: Settings, sealed: str) -> str:
        opened.append(sealed)
        return unseal(settings, sealed)

    monkeypatch.setattr(acp_client, "unseal", counted)
    acp = AcpClient(resources.settings)
    sealed = seal(resources.settings, "agx_secret")
    one = AcpCall(acp_server.url, "event/send", {}, "1", "1", 5, sealed_key=sealed)
    for _ in range(3):
        await acp.call(one)
    await acp.aclose()
    assert (opened, sent(acp_server)) == ([sealed], [("event/send", "agx_secret")] * 3)
    assert sealed not in repr(one)


# Runs.


async def launch(resources: Resources, lane: Lane = Lane.DELIVER) -> None:
    page = PageRef(BATCH, lane, 0)
    await Launch(resources, Dispatch(resources), page, asyncio.Event(), lambda: None).run()


async def run_of(resources: Resources, agent: Agent, key: str) -> Run:
    """A due run of an agent that is known by this key, under an admin."""
    await key_of(resources, "user:ann", Role.ADMIN)
    await fetch(
        resources,
        "UPDATE agents SET sealed_key = :sealed WHERE id = :id",
        sealed=seal(resources.settings, key),
        id=agent.id,
    )
    creator = {"principal_type": "user", "user_id": "ann", "account_id": "default"}
    schedule = await add_schedule(resources, agent, None, creator_principal=creator)
    lane = Lane.ANSWER if agent.acp_type is AcpType.SYNC else Lane.DELIVER
    run = await open_run(resources, agent, schedule, lane=lane)
    await fetch(
        resources,
        "UPDATE runs SET principal = (SELECT creator_principal FROM agent_run_schedules LIMIT 1)",
    )
    return run


@pytest.mark.parametrize("acp_type", [AcpType.ASYNC, AcpType.SYNC])
async def test_a_run_calls_its_agent_with_the_agents_key(
    resources: Resources, acp_server: AcpServer, acp_type: AcpType
) -> None:
    fill_hooks(resources)
    agent = await add_agent(resources, acp_url=acp_server.url, acp_type=acp_type)
    run = await run_of(resources, agent, "agx_known")
    await launch(resources, Lane.ANSWER if acp_type is AcpType.SYNC else Lane.DELIVER)

    methods = ["message/send"] if acp_type is AcpType.SYNC else ["task/create", "event/send"]
    assert sent(acp_server) == [(method, "agx_known") for method in methods], await read_run(
        resources, run.id
    )
    if acp_type is AcpType.ASYNC:
        await stop_at_agent(resources, run.id)
        assert sent(acp_server)[-1] == ("task/cancel", "agx_known")


async def test_a_run_whose_agents_key_is_unreadable_waits_and_names_the_setting(
    resources: Resources, acp_server: AcpServer
) -> None:
    fill_hooks(resources)
    agent = await add_agent(resources, acp_url=acp_server.url)
    run = await run_of(resources, agent, "agx_known")
    async with another_secret_key(resources):
        await launch(resources)

    row = await read_run(resources, run.id)
    assert (row.status, row.next_attempt_at is not None, sent(acp_server)) == (RunStatus.DUE, True, [])
    assert "AGENTEX_SECRET_KEY" in (row.error or "")

    await fetch(resources, "UPDATE runs SET next_attempt_at = now()")
    await launch(resources)
    assert (await read_run(resources, run.id)).status is RunStatus.DELIVERED


async def test_a_cancel_that_cannot_be_told_is_no_fault(
    resources: Resources, acp_server: AcpServer, caplog: pytest.LogCaptureFixture
) -> None:
    fill_hooks(resources)
    agent = await add_agent(resources, acp_url=acp_server.url)
    run = await run_of(resources, agent, "agx_known")
    await launch(resources)
    before = sent(acp_server)
    async with another_secret_key(resources):
        await stop_at_agent(resources, run.id)
    assert sent(acp_server) == before
    assert "an agent could not be told of a cancel" in caplog.text


async def test_without_the_setting_nothing_is_opened(resources: Resources) -> None:
    sealed = seal(resources.settings, "agx_known")
    acp = AcpClient(resources.settings.model_copy(update={"secret_key": None}))
    with pytest.raises(SecretUnreadable, match="AGENTEX_SECRET_KEY"):
        acp.check_key(sealed)
    acp.check_key(None)
