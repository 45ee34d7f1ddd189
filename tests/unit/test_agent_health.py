"""What an answer to GET /healthz means."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from agentex.acp.client import HttpAnswer
from agentex.agents.health import health_problem

AGENT_ID = UUID("01930000-0000-7000-8000-00000000abcd")
OTHER = "01930000-0000-7000-8000-00000000ffff"
NOT_HEALTHY = 'GET /healthz did not answer {"status": "healthy"}'


@pytest.mark.parametrize(
    "said",
    [
        {"status": "healthy"},
        {"status": "healthy", "agent_id": None},
        {"status": "healthy", "agent_id": ""},
        {"status": "healthy", "agent_id": str(AGENT_ID)},
        {"status": "healthy", "agent_id": str(AGENT_ID).upper(), "more": 1},
    ],
)
def test_an_agent_that_says_so_is_healthy(said: object) -> None:
    assert health_problem(HttpAnswer(200, json.dumps(said).encode()), AGENT_ID) is None


@pytest.mark.parametrize("status", [404, 405])
def test_an_agent_without_the_route_is_not_held_to_it(status: int) -> None:
    assert health_problem(HttpAnswer(status, b"{}"), AGENT_ID) is None


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 500, 503])
def test_any_other_status_is_a_problem(status: int) -> None:
    problem = health_problem(HttpAnswer(status, b'{"status": "healthy"}'), AGENT_ID)
    assert problem == f"GET /healthz answered HTTP {status}"


@pytest.mark.parametrize(
    "body", [b"", b"ok", b"null", b'"healthy"', b"[]", b"{}", b'{"status": "sick"}', b"\xff", b"[" * 60_000]
)
def test_what_does_not_say_healthy_is_a_problem(body: bytes) -> None:
    assert health_problem(HttpAnswer(200, body), AGENT_ID) == NOT_HEALTHY


@pytest.mark.parametrize(
    ("agent_id", "shown"), [(OTHER, repr(OTHER)), (7, "'7'"), ("x" * 500, repr("x" * 80))]
)
def test_another_agents_answer_is_a_problem_that_names_it(agent_id: object, shown: str) -> None:
    body = json.dumps({"status": "healthy", "agent_id": agent_id}).encode()
    assert health_problem(HttpAnswer(200, body), AGENT_ID) == (
        f"GET /healthz answered as another agent, {shown}"
    )
