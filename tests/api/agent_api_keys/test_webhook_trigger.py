"""POST /agent_api_keys/webhook-trigger."""

from __future__ import annotations

import httpx2
import pytest

from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.api import Json, problem

PATH = "/agent_api_keys/webhook-trigger"
BODY: Json = {"agent_name": "greeter", "name": "acme/widgets", "forward_path": "github-pr/42"}


async def test_a_webhook_is_a_secret_and_where_to_send(client: httpx2.AsyncClient, agent: Json) -> None:
    response = await client.post(PATH, json=BODY | {"base_url": "https://agents.example.com/"})

    made = response.json()
    path = "/agents/forward/name/greeter/github-pr/42"
    assert (response.status_code, made) == (
        200,
        {
            "agent_name": "greeter",
            "key_id": made["key_id"],
            "name": "acme/widgets",
            "source": "github",
            "secret": made["secret"],
            "webhook_path": path,
            "webhook_url": f"https://agents.example.com{path}",
        },
    )
    assert len(made["secret"]) == 64
    key = (await client.get(f"/agent_api_keys/{made['key_id']}")).json()
    assert (key["name"], key["api_key_type"], key["key_prefix"]) == ("acme/widgets", "github", None)


@pytest.mark.parametrize(
    ("setting", "url"),
    [(None, None), ("https://x.example/agentex", "https://x.example/agentex/agents/forward/name/greeter/s")],
)
async def test_the_address_is_the_settings_when_none_is_given(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, setting: str | None, url: str | None
) -> None:
    resources.settings = resources.settings.model_copy(update={"public_url": setting})
    body = {**BODY, "source": "slack", "name": "A1", "secret": "the app's secret", "forward_path": "/s"}
    made = (await client.post(PATH, json=body)).json()

    assert (made["webhook_url"], made["secret"]) == (url, "the app's secret")


async def test_a_path_is_encoded_as_it_is_asked_for(client: httpx2.AsyncClient, agent: Json) -> None:
    made = (await client.post(PATH, json=BODY | {"forward_path": "a b/<x>/%C3%A9"})).json()
    assert made["webhook_path"] == "/agents/forward/name/greeter/a%20b/%3Cx%3E/%C3%A9"


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"source": "external"}, 400, "source is external; only github and slack sign their webhooks"),
        ({"source": "internal"}, 400, "source is internal; only github and slack sign their webhooks"),
        (
            {"source": "slack"},
            400,
            "secret is missing: Slack signs with the app's own Signing Secret; give that",
        ),
        ({"forward_path": "../x"}, 400, "forward_path '../x' has a segment of dots"),
        ({"forward_path": "a?b=c"}, 400, "forward_path 'a?b=c' has a query or a fragment"),
        (
            {"forward_path": "api"},
            400,
            "forward_path 'api' is the agent's JSON-RPC; send that to /agents/name/{name}/rpc",
        ),
        ({"agent_name": "nobody"}, 404, "agent 'nobody' not found"),
        (
            {"base_url": "ftp://x"},
            422,
            "base_url: 'ftp://x' is not an http(s) URL without query and fragment",
        ),
        ({"secret": "short77"}, 422, "secret: takes 8 to 512 printable ASCII characters; 7 were given"),
        ({"secret": 1_234_567_890}, 422, "secret: Input should be a valid string"),
    ],
)
async def test_bad_input_makes_nothing(
    client: httpx2.AsyncClient, resources: Resources, agent: Json, changes: Json, status: int, message: str
) -> None:
    response = await client.post(PATH, json=BODY | changes)

    code = {400: "bad-request", 404: "not-found", 422: "invalid-input"}[status]
    assert (response.status_code, response.json()) == (status, problem(PATH, status, code, message))
    assert list(await fetch(resources, "SELECT 1 FROM agent_api_keys")) == []


async def test_a_name_is_taken_once(client: httpx2.AsyncClient, agent: Json) -> None:
    assert (await client.post(PATH, json=BODY)).status_code == 200
    response = await client.post(PATH, json=BODY)

    message = "agent 'greeter' already has a key 'acme/widgets' of type github; delete it first"
    assert (response.status_code, response.json()) == (400, problem(PATH, 400, "already-exists", message))
