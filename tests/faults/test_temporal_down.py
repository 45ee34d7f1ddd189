"""Temporal down: every call of the API goes on as ever, and what is known of it is said."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from agentex.dev.ports import free_port
from agentex.dev.temporal import EmbeddedTemporal
from tests.faults.conftest import TEMPLATE
from tests.support.fault_stack import Answer, Stack
from tests.support.postgres import PostgresServer

# A call to Temporal that stood before an answer would be seen: it would wait longer than the request may.
RPC_SECONDS = 60
REQUEST_SECONDS = 20


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield listener.getsockname()[1]


@pytest.mark.timeout(90)
async def test_no_request_waits_for_a_temporal_that_is_silent(
    shared_postgres: PostgresServer, silent_port: int, tmp_path: Path
) -> None:
    """Known fault 6 of the incumbent (pause, resume, delete failed), and 15: include_live asked per row."""
    url = shared_postgres.create_database(TEMPLATE)
    stack = Stack(tmp_path, url, f"127.0.0.1:{silent_port}", temporal_rpc_timeout_seconds=RPC_SECONDS)
    try:
        stack.start_api()
        answers = await call_everything(stack)
    finally:
        await stack.close(tidy_temporal=False)
        shared_postgres.drop_database(url)
    assert {call: answer.status for call, answer in answers.items()} == dict.fromkeys(answers, 200)
    shown = answers["GET ?include_live=true"].json["run_schedules"]
    assert [(len(one["next_action_times"]), one["live_data_available"]) for one in shown] == [(10, None)] * 3


async def call_everything(stack: Stack) -> dict[str, Answer]:
    """Each call of a schedule's life, of an interval that needs a Temporal Schedule of its own."""
    agent = await stack.start_agent("async")
    below = f"/agents/{agent.id}/schedules"
    answers: dict[str, Answer] = {}

    async def call(method: str, path: str, body: object = None) -> Answer:
        answer = await stack.call(method, f"{below}{path}", body, seconds=REQUEST_SECONDS)
        answers[f"{method} {path}"] = answer
        return answer

    for name, cadence in (("a", {"interval_seconds": 7}), ("b", {"interval_seconds": 60})):
        await call("POST", "", {"name": name, **cadence, "initial_input": {"content": "Go"}})
    created = await call(
        "POST", "", {"name": "c", "interval_seconds": 11, "initial_input": {"content": "Go"}}
    )
    schedule = f"/{created.json['id']}"
    coming = created.json["next_action_times"][5]
    await call("GET", "?include_live=true")
    await call("GET", schedule)
    await call("PATCH", schedule, {"interval_seconds": 13})
    await call("PATCH", schedule, {"interval_seconds": 11})
    await call("POST", f"{schedule}/skip", {"scheduled_time": coming})
    await call("POST", f"{schedule}/unskip", {"scheduled_time": coming})
    await call("POST", f"{schedule}/trigger")
    await call("POST", f"{schedule}/pause", {"note": "later"})
    await call("POST", f"{schedule}/resume")
    await call("GET", f"{schedule}/runs")
    await call("DELETE", schedule)
    return answers


@pytest.mark.timeout(120)
async def test_readiness_tells_of_temporal_and_runs_are_delivered_when_it_comes(
    stack_on_own_temporal: Callable[..., Stack], own_temporal: EmbeddedTemporal
) -> None:
    """API and worker are started while there is no Temporal."""
    own_temporal.kill()
    stack = stack_on_own_temporal(late_after_seconds=3, stuck_after_seconds=1)
    stack.start_api()
    worker = stack.start_worker(ready=False)
    agent = await stack.start_agent("async")

    async def says_which() -> bool:
        ready = await stack.call("GET", "/readyz")
        assert (ready.status, ready.json["checks"]["temporal"]["ok"]) == (503, False)
        # Its first connection may take longer than a probe waits.
        return ready.json["checks"]["postgres"]["ok"]

    await stack.until(says_which, "readiness that says what is away")
    schedule = await stack.create_schedule(agent, interval_seconds=2)
    triggered = await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/trigger")

    async def has_rows() -> bool:
        return len(await stack.runs()) >= 4

    await stack.until(has_rows, "rows without Temporal")
    assert (await stack.ok("GET", f"/agents/{agent.id}/schedules/{schedule['id']}"))[
        "live_data_available"
    ] is False
    own_temporal.start()

    async def both_delivered() -> bool:
        rows = await stack.runs()
        manual = [row.status for row in rows if str(row.id) == triggered["run_id"]]
        return manual == ["delivered"] and any(
            row.status == "delivered" and row.cause != "manual" for row in rows
        )

    await stack.until(both_delivered, "delivery when Temporal is there")

    async def is_ready() -> bool:
        return (await stack.call("GET", "/readyz")).status == 200

    await stack.until(is_ready, "readiness")
    rows = [row for row in await stack.runs() if row.cause != "manual"]
    steps = {later.due_at - row.due_at for row, later in pairwise(rows)}
    assert steps == {timedelta(seconds=2)}
    assert set(agent.sent().values()) == {1}
    assert "Traceback" not in stack.api.output(100_000) + worker.process.output(100_000)


@pytest.mark.timeout(120)
async def test_agent_whose_port_nobody_serves_fails_visibly_and_alone(
    make_stack: Callable[..., Stack],
) -> None:
    """Known fault 8 of the incumbent: failures at fire time were invisible in the API."""
    stack = make_stack()
    stack.start()
    agent = await stack.start_agent("async")
    body = {
        "name": "nobody",
        "description": "",
        "acp_url": f"http://127.0.0.1:{free_port()}",
        "acp_type": "async",
    }
    nobody = (await stack.ok("POST", "/agents/register", body))["id"]
    policies = {"retries": {"window_seconds": 0}}
    given = {"name": "x", "interval_seconds": 2, "initial_input": {"content": "Go"}, "policies": policies}
    failing = await stack.ok("POST", f"/agents/{nobody}/schedules", given)
    running = await stack.create_schedule(agent, interval_seconds=2)
    await stack.until_delivered(2, running["id"])

    async def failed() -> bool:
        return any(row.status == "failed" for row in await stack.runs(failing["id"]))

    await stack.until(failed, "a failure that is shown")
    shown = (await stack.ok("GET", f"/agents/{nobody}/schedules/{failing['id']}/runs"))["runs"]
    assert {(run["status"], run["reason"], run["attempt"]) for run in shown if run["finished_at"]} == {
        ("failed", "agent_unreachable", 1)
    }
    assert {row.outcome for row in await stack.runs(running["id"]) if row.delivered_at} == {
        ("delivered", None)
    }
