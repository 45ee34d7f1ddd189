"""Schedules of an agent, and what the tests of remote expect of an outage."""

from __future__ import annotations

import httpx2

from tests.support.api import Json
from tests.support.auth_stub import principal

SCHEDULE: Json = {"name": "nightly", "interval_seconds": 3_600, "initial_input": {"content": "go"}}


ALICE, BOB = principal("alice"), principal("bob")


async def make(client: httpx2.AsyncClient, agent: Json, **changes: object) -> Json:
    answer = await client.post(f"/agents/{agent['id']}/schedules", json=SCHEDULE | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


def selector(schedule: Json) -> str:
    return f"run-schedule::{schedule['agent_id']}::{schedule['id']}"


def is_outage(answer: httpx2.Response) -> bool:
    """503, worth a repeat, in words of ours."""
    assert answer.status_code == 503, answer.text
    code = answer.json()["type"]
    return code == "urn:agentex:problem:authorizer-unavailable" and "retry-after" in answer.headers
