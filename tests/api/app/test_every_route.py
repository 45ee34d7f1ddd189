"""Each route asks who may do that, and asks before it opens a transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import rows
from agentex.resources import Resources
from tests.api.conftest import shared_app
from tests.api.schedules.schedules import INPUT, Schedules
from tests.support.api import TEXT, Json, create_task, registration
from tests.support.authz import EVERYTHING, ScriptedAuthz
from tests.support.sse import first_update

# What everybody may ask, and learns nothing of anybody from.
OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
INSTANT: Json = {"scheduled_time": "{coming}"}
SKIPPED: Json = {"scheduled_time": "{skipped}"}
RPC: list[Json] = [
    {"method": "task/create", "params": {"name": "{name}"}},
    {"method": "event/send", "params": {"task_id": "{task_id}", "content": TEXT}},
    {"method": "event/send", "params": {"task_name": "{name}", "content": TEXT}},
]
ONE_SCHEDULE = "/agents/{agent_id}/schedules/{schedule_id}"
NAMED_SCHEDULE = "/agents/{agent_id}/schedules/name/{name}"
# Bodies with which a route answers 200; a route that is not named here needs none.
BODIES: dict[str, list[Json]] = {
    "POST /agents/register": [registration(name="another"), registration(name="{name}", acp_type="sync")],
    "POST /agents/{agent_id}/rpc": RPC,
    "POST /agents/name/{name}/rpc": RPC,
    "POST /messages": [{"task_id": "{task_id}", "content": TEXT | {"author": "agent"}}],
    "POST /agents/{agent_id}/schedules": [
        {"name": "another", "interval_seconds": 3_600, "initial_input": INPUT}
    ],
    **{f"PATCH {path}": [{"description": "changed"}] for path in (ONE_SCHEDULE, NAMED_SCHEDULE)},
    **{f"POST {path}/skip": [INSTANT] for path in (ONE_SCHEDULE, NAMED_SCHEDULE)},
    **{f"POST {path}/unskip": [SKIPPED] for path in (ONE_SCHEDULE, NAMED_SCHEDULE)},
}
QUERIES = {"GET /messages": "?task_id={task_id}"}


@dataclass(frozen=True)
class Asked:
    """A request, with words in braces for what the world has."""

    method: str
    path: str
    body: Json | None

    async def of(self, client: httpx2.AsyncClient, world: dict[str, str]) -> httpx2.Response:
        """Its answer in this world."""
        filled = json.dumps([self.path + QUERIES.get(f"{self.method} {self.path}", ""), self.body])
        for word, value in world.items():
            filled = filled.replace(f"{{{word}}}", value)
        url, content = json.loads(filled)
        if url.endswith("/stream"):
            # It has no end while its task runs.
            return await first_update(shared_app(), url)
        return await client.request(self.method, url, json=content)


def requests() -> list[Asked]:
    """Every route of the app but the open ones, with each of its bodies."""
    found: list[Asked] = []
    for route in iter_route_contexts(shared_app().routes):
        path = (route.path or "").replace(":path}", "}")
        for method in sorted((route.methods or set()) - {"HEAD"}):
            bodies = BODIES.get(f"{method} {path}", [None])
            found += [Asked(method, path, body) for body in bodies if path not in OPEN]
    return sorted(found, key=str)


each_request = pytest.mark.parametrize(
    "asked",
    requests(),
    ids=[f"{number}-{one.method}-{one.path}" for number, one in enumerate(requests())],
)


@pytest.fixture
async def world(client: httpx2.AsyncClient, resources: Resources, agent: Json) -> dict[str, str]:
    """One of each, by the words that paths and bodies have for it; agent, task and schedule share a name."""
    # Who starts runs has transactions of its own.
    resources.hooks.run_opened = None
    name = agent["name"]
    task = await create_task(client, agent, name=name)
    message = await client.post("/messages", json={"task_id": task["id"], "content": TEXT})
    schedules = Schedules(client, resources, agent["id"])
    schedule = await schedules.create(name=name)
    coming, skipped = schedule["next_action_times"][:2]
    await schedules.act(schedule, "skip", scheduled_time=skipped)
    triggered = await schedules.act(schedule, "trigger")
    return {
        "name": name,
        "agent_id": agent["id"],
        "task_id": task["id"],
        "message_id": message.json()["id"],
        "schedule_id": schedule["id"],
        "run_id": triggered.json()["run_id"],
        "coming": coming,
        "skipped": skipped,
    }


@each_request
async def test_permission_is_asked_while_no_transaction_is_open(
    client: httpx2.AsyncClient,
    resources: Resources,
    authz: ScriptedAuthz,
    world: dict[str, str],
    asked: Asked,
) -> None:
    seen: list[list[str]] = []

    async def look(given: AsyncSession) -> None:
        # As a provider does that knows who may what from tables.
        await rows(given, "SELECT 1")
        async with resources.db.read() as other:
            found = await rows(
                other,
                """
                SELECT query FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND backend_type = 'client backend' AND xact_start IS NOT NULL
                """,
            )
            seen.append([row["query"] for row in found])

    authz.while_asked = look
    answer = await asked.of(client, world)

    assert answer.status_code == 200, answer.text
    assert "error" not in answer.json() or answer.json()["error"] is None
    assert seen
    assert seen == [[]] * len(seen)


@each_request
async def test_who_may_do_nothing_gets_nothing(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, world: dict[str, str], asked: Asked
) -> None:
    authz.deny = EVERYTHING

    answer = await asked.of(client, world)

    assert answer.status_code in {403, 404}, answer.text
