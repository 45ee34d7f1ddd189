"""Deployments as tests make them."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.api import Json, register


class Deployments:
    """One agent's deployments over HTTP."""

    def __init__(self, client: httpx2.AsyncClient, agent: Json) -> None:
        self.client = client
        self.agent = agent
        self.path = f"/agents/{agent['id']}/deployments"

    async def create(self, **changes: object) -> Json:
        """A new one, as it was answered."""
        response = await self.client.post(self.path, json={"docker_image": "greeter:2", **changes})
        assert response.status_code == 200, response.text
        return response.json()

    async def read(self, deployment: Json) -> Json:
        """The same as it is now."""
        response = await self.client.get(f"{self.path}/{deployment['id']}")
        assert response.status_code == 200, response.text
        return response.json()

    async def starts(self, deployment: Json, acp_url: str, **changes: object) -> Json:
        """Its agent process registers; the agent as it was answered."""
        metadata = {"deployment_id": deployment["id"], "commit_sha": f"sha-{deployment['id']}"}
        return await register(self.client, acp_url=acp_url, **{"registration_metadata": metadata, **changes})

    async def ready(self, acp_url: str, **changes: object) -> Json:
        """A new one whose process has registered."""
        deployment = await self.create(**changes)
        await self.starts(deployment, acp_url)
        return await self.read(deployment)

    async def promote(self, deployment: Json) -> httpx2.Response:
        """The answer to a promotion."""
        return await self.client.post(f"{self.path}/{deployment['id']}/promote")

    async def delete(self, deployment: Json) -> httpx2.Response:
        """The answer to a deletion."""
        return await self.client.delete(f"{self.path}/{deployment['id']}")

    async def agent_now(self) -> Json:
        """The agent as it is now."""
        return (await self.client.get(f"/agents/{self.agent['id']}")).json()


@pytest.fixture
async def deployments(client: httpx2.AsyncClient, agent: Json) -> Deployments:
    """The deployments of an agent that is registered without one."""
    return Deployments(client, agent)
