"""Requests about one agent's schedules, as a client makes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from agentex.resources import Resources
from tests.support.api import Json, register

INPUT: Json = {"content": "go"}
FULL_INPUT: Json = {"type": "text", "author": "user", "content": "go"}
PRINCIPAL: Json = {
    "principal_type": "user",
    "user_id": "tester",
    "service_account_id": None,
    "account_id": "default",
}


def iso(instant: datetime) -> str:
    """As the API writes it."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def next_multiples(seconds: int, count: int, after: datetime) -> list[str]:
    """The next instants of an interval."""
    first = int(after.timestamp()) // seconds + 1
    return [iso(datetime.fromtimestamp((first + n) * seconds, UTC)) for n in range(count)]


def moved(before: Json, after: Json, **keys: object) -> Json:
    """`before` with these keys, as the next version."""
    return before | {"version": before["version"] + 1, "updated_at": after["updated_at"]} | keys


def tomorrow_at(hour: int, days: int = 1) -> datetime:
    """An instant of `0 {hour} * * *` in UTC that is still ahead."""
    return (datetime.now(UTC) + timedelta(days=days)).replace(hour=hour, minute=0, second=0, microsecond=0)


@dataclass
class Schedules:
    """The schedules of one agent."""

    client: httpx2.AsyncClient
    resources: Resources
    agent_id: str

    @classmethod
    async def of_agent(cls, client: httpx2.AsyncClient, resources: Resources, name: str) -> Schedules:
        """Those of an async agent of this name that is registered now; nobody listens for it."""
        return cls(client, resources, (await register(client, name=name))["id"])

    async def of_other_agent(self) -> Schedules:
        """Those of another agent."""
        return await self.of_agent(self.client, self.resources, "other")

    @property
    def url(self) -> str:
        return f"/agents/{self.agent_id}/schedules"

    def at(self, form: str, schedule: Json) -> str:
        """The path of a schedule in one of its forms."""
        return f"{self.url}/{schedule['id']}" if form == "by-id" else f"{self.url}/name/{schedule['name']}"

    async def post(self, **keys: Any) -> httpx2.Response:
        """POST: daily at nine unless the keys give a cadence; a key of None is sent as null."""
        body: Json = {"name": "nightly", "initial_input": INPUT}
        if not keys.keys() & {"cron_expression", "interval_seconds"}:
            body["cron_expression"] = "0 9 * * *"
        return await self.client.post(self.url, json=body | keys)

    async def create(self, **keys: Any) -> Json:
        """A new schedule as it was answered."""
        answer = await self.post(**keys)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def read(self, schedule: Json) -> Json:
        """The schedule as it stands."""
        answer = await self.client.get(f"{self.url}/{schedule['id']}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def patch(self, schedule: Json, **keys: Any) -> httpx2.Response:
        """PATCH with just these keys."""
        return await self.client.patch(f"{self.url}/{schedule['id']}", json=keys)

    async def act(self, schedule: Json, verb: str, **body: Any) -> httpx2.Response:
        """POST …/pause, resume, trigger, skip or unskip."""
        return await self.client.post(f"{self.url}/{schedule['id']}/{verb}", json=body or None)
