"""An agent with routes of its own, registered, and what opens them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from tests.support.api import Json, register
from tests.support.own_server import OwnServer

AT = "/agents/forward/name/greeter"
REPOSITORY = "acme/widgets"
APP_ID = "A0123"
SECRET = "It's a Secret to Everybody"  # noqa: S105 - GitHub's own example


@dataclass(frozen=True)
class Signed:
    """A webhook's request: its body and headers."""

    body: bytes
    headers: dict[str, str]


def by_github(payload: object, *, secret: str = SECRET) -> Signed:
    """As GitHub sends it."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-hub-signature-256": f"sha256={digest}",
    }
    return Signed(body, headers)


def by_slack(payload: object, *, secret: str = SECRET, age_seconds: float = 0) -> Signed:
    """As Slack sends it."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    timestamp = str(int(time.time() - age_seconds))
    digest = hmac.new(secret.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json",
        "x-slack-request-timestamp": timestamp,
        "x-slack-signature": f"v0={digest}",
    }
    return Signed(body, headers)


async def add_key(
    client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **changes: object
) -> Json:
    """A key of the agent `greeter`, as it was answered."""
    body = {"agent_name": "greeter", "name": "ci", **changes}
    response = await client.post("/agent_api_keys", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
async def own_server() -> AsyncIterator[OwnServer]:
    """The agent's process."""
    async with OwnServer() as server:
        yield server


@pytest.fixture
async def agent(client: httpx2.AsyncClient, own_server: OwnServer) -> Json:
    """The agent `greeter`, at that process."""
    return await register(client, acp_url=own_server.url)


@pytest.fixture
async def with_key(client: httpx2.AsyncClient, agent: Json) -> dict[str, str]:
    """The header with an external key of that agent."""
    return {"x-agent-api-key": (await add_key(client))["api_key"]}
