"""Where agents may live: addresses are refused when they are registered, names when they are called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from agentex.acp.guard import ALLOWED
from agentex.agents.health import check_health
from agentex.executors.base import Lane
from agentex.hooks import fill_hooks
from agentex.resources import Resources
from agentex.runs.dispatch import Dispatch
from agentex.runs.launch import Launch
from agentex.runs.pages import PageRef
from agentex.settings import Settings
from tests.api.ledger.stage import BATCH, add_agent, add_schedule, fetch, open_run, read_run
from tests.support.api import Json, problem, register, registration, rpc, rpc_error
from tests.support.listener import Listener, listening
from tests.support.names import Names

PATH = "/agents/register"
NAME = "agent.example"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As with a provider that asks for credentials, and with nothing set."""
    return settings.model_copy(
        update={"agent_networks": (), "agent_host_rewrites": {"host.docker.internal": "127.0.0.1"}}
    )


@pytest.fixture
async def loopback() -> AsyncIterator[Listener]:
    """What must see nobody."""
    async with listening() as listener:
        yield listener
        assert listener.seen == 0


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    found = Names(monkeypatch)
    found[NAME] = [["127.0.0.1"]]
    return found


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("2130706433", "2130706433 is a loopback address"),
        ("0x7f.1", "0x7f.1 is a loopback address"),
        ("169.254.169.254", "169.254.169.254 is a cloud's metadata address"),
        ("10.1.2.3", "10.1.2.3 is a private address"),
        ("[::1]", "::1 is a loopback address"),
        ("[::ffff:169.254.169.254]", "::ffff:a9fe:a9fe is a cloud's metadata address"),
        ("[64:ff9b::127.0.0.1]", "64:ff9b::7f00:1 is another form of 127.0.0.1, a loopback address"),
        ("user:secret@127.0.0.1", "127.0.0.1 is a loopback address"),
        # What it is rewritten to stays with us.
        ("host.docker.internal", "host.docker.internal is a loopback address"),
    ],
)
async def test_a_refused_address_cannot_be_registered(
    client: httpx2.AsyncClient, resources: Resources, host: str, why: str
) -> None:
    response = await client.post(PATH, json=registration(acp_url=f"http://{host}:8000"))
    assert (response.status_code, response.json()) == (
        422,
        problem(PATH, 422, "invalid-input", f"acp_url: {why}; {ALLOWED}"),
    )
    assert await fetch(resources, "SELECT id FROM agents") == []


async def test_an_agent_does_not_move_to_a_refused_address(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    agent = await register(client, acp_url="https://8.8.8.8:8000")
    response = await client.post(PATH, json=registration(acp_url="http://169.254.169.254"))
    assert response.status_code == 422
    (row,) = await fetch(resources, "SELECT id, acp_url FROM agents")
    assert (str(row["id"]), row["acp_url"]) == (agent["id"], "https://8.8.8.8:8000")


async def test_nor_does_a_deployment_of_it(client: httpx2.AsyncClient, resources: Resources) -> None:
    agent = await register(client, acp_url="https://8.8.8.8:8000")
    made = await client.post(f"/agents/{agent['id']}/deployments", json={"docker_image": "greeter:2"})
    metadata = {"deployment_id": made.json()["id"]}
    body = registration(acp_url="http://10.0.0.1:8000", registration_metadata=metadata)
    assert (await client.post(PATH, json=body)).status_code == 422
    (row,) = await fetch(resources, "SELECT status, acp_url FROM deployments")
    assert (row["status"], row["acp_url"]) == ("Pending", None)


@pytest.mark.parametrize("host", ["xn--", "\uff41\uff05\uff42"])
async def test_a_host_that_no_client_can_read_cannot_be_registered(
    client: httpx2.AsyncClient, host: str
) -> None:
    response = await client.post(PATH, json=registration(acp_url=f"http://{host}:8000"))
    message = "acp_url: the agent's acp_url is not an http or https address with a host"
    assert (response.status_code, response.json()["message"]) == (422, message)


@pytest.fixture
async def hidden(client: httpx2.AsyncClient, names: Names, loopback: Listener) -> Json:
    """An agent whose name resolves to this machine, which shows only when it is called."""
    agent = await register(client, acp_url=f"http://{NAME}:{loopback.port}")
    assert names.asked == []
    return agent


async def test_a_name_that_resolves_to_a_refused_address_is_a_typed_error_without_the_address(
    client: httpx2.AsyncClient, hidden: Json, loopback: Listener
) -> None:
    answer = await rpc(client, hidden, "task/create", {"name": "t"})
    task = (await client.get("/tasks/name/t")).json()
    failure = f"agent {NAME}:{loopback.port}, task/create: its address is refused: {ALLOWED}"
    assert answer == rpc_error(-32603, f"{failure} (task:{task['id']} is kept)")


async def test_a_health_check_says_so_too(
    client: httpx2.AsyncClient, resources: Resources, hidden: Json, loopback: Listener
) -> None:
    for _ in range(resources.settings.agent_health_failures):
        await check_health(resources)
    found = (await client.get(f"/agents/{hidden['id']}")).json()
    reason = f"agent {NAME}:{loopback.port}, GET /healthz: its address is refused: {ALLOWED}"
    assert (found["status"], found["status_reason"]) == ("Unhealthy", reason)


@pytest.mark.parametrize(("window_seconds", "ends"), [(600, "due"), (0, "failed")])
async def test_a_run_waits_for_its_retry_window_and_then_fails_with_the_reason(
    resources: Resources, names: Names, loopback: Listener, window_seconds: int, ends: str
) -> None:
    assert names.asked == []
    fill_hooks(resources)
    agent = await add_agent(resources, acp_url=f"http://{NAME}:{loopback.port}")
    schedule = await add_schedule(
        resources, agent, None, policies={"retries": {"window_seconds": window_seconds}}
    )
    run = await open_run(resources, agent, schedule)
    page = PageRef(BATCH, Lane.DELIVER, 0)
    await Launch(resources, Dispatch(resources), page, asyncio.Event(), lambda: None).run()
    row = await read_run(resources, run.id)
    error = f"agent {NAME}:{loopback.port}, task/create: its address is refused: {ALLOWED}"
    assert (row.status, row.error) == (ends, error)
    assert row.reason == ("agent_unreachable" if ends == "failed" else None)
