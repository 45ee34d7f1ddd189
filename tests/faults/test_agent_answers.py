"""What an agent may do to a request, row by row of the table "What is sent again".

All cases are played at once, each by a schedule of its own; each test then looks at one.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from agentex.database import JsonObject
from agentex.dev.temporal import EmbeddedTemporal
from tests.faults.conftest import TEMPLATE
from tests.support.acp_replies import Reply
from tests.support.fault_agent import FaultAgent
from tests.support.fault_cases import (
    ATTEMPTS_IN_WINDOW,
    CASES,
    RETRY_WINDOW_SECONDS,
    TIMEOUT_SECONDS,
    Case,
    Ended,
)
from tests.support.fault_stack import Stack
from tests.support.postgres import PostgresServer, open_folder

METHODS = ("task/create", "event/send", "message/send")
# The first test waits until all cases are played.
pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True)
class Played:
    """The stack on which the cases were played, and each case's run as the API shows it."""

    stack: Stack
    agents: dict[str, FaultAgent]
    schedules: dict[str, JsonObject]
    runs: dict[str, JsonObject]

    def agent(self, case: Case) -> FaultAgent:
        return self.agents["message/send" if case.method == "message/send" else "event/send"]


@pytest.fixture(scope="module")
async def stack(shared_postgres: PostgresServer, shared_temporal: EmbeddedTemporal) -> AsyncIterator[Stack]:
    directory = open_folder()
    url = shared_postgres.create_database(TEMPLATE)
    stack = Stack(
        directory,
        url,
        shared_temporal.address,
        event_send_timeout_seconds=TIMEOUT_SECONDS,
        task_create_timeout_seconds=TIMEOUT_SECONDS,
        answer_timeout_seconds=TIMEOUT_SECONDS,
        agent_timeouts_in_a_row=1000,
    )
    stack.start()
    yield stack
    await stack.close()
    shared_postgres.drop_database(url)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
async def played(stack: Stack) -> Played:
    agents = {"event/send": await stack.start_agent("async"), "message/send": await stack.start_agent("sync")}
    schedules: dict[str, JsonObject] = {}

    async def play(case: Case) -> tuple[str, str]:
        agent = agents["message/send" if case.method == "message/send" else "event/send"]
        schedule = await paused_schedule(stack, agent, **case.policies)
        schedules[case.name] = schedule
        await agent.script(case.method, case.reply, repeat=case.repeat, schedule_id=str(schedule["id"]))
        return case.name, await trigger(stack, agent, schedule)

    ids = dict([await play(case) for case in CASES])
    # The longest take their 15 s of waits; the rest of the time is for a machine that is busy.
    await stack.until_finished(len(CASES), seconds=120)
    runs = {name: await stack.ok("GET", f"/runs/{run_id}") for name, run_id in ids.items()}
    return Played(stack, agents, schedules, runs)


async def paused_schedule(stack: Stack, agent: FaultAgent, **retries: object) -> JsonObject:
    """A schedule that runs when it is triggered only."""
    policies = {"retries": {"window_seconds": RETRY_WINDOW_SECONDS, **retries}}
    return await stack.create_schedule(agent, interval_seconds=3600, paused=True, policies=policies)


async def trigger(stack: Stack, agent: FaultAgent, schedule: JsonObject) -> str:
    """Run it now; returns the run's id."""
    return (await stack.ok("POST", f"/agents/{agent.id}/schedules/{schedule['id']}/trigger"))["run_id"]


def ended(run: dict[str, Any], agent: FaultAgent, schedule: JsonObject) -> Ended:
    """How a run ended, as the API and the agent tell it."""
    requests = agent.requests(*METHODS, schedule_id=str(schedule["id"]))
    return Ended(run["status"], run["reason"], run["attempt"], dict(Counter(one.method for one in requests)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_run_ends_as_the_table_says(played: Played, case: Case) -> None:
    """Known fault 8 of the incumbent: failures at fire time were invisible in the API."""
    agent, schedule, run = played.agent(case), played.schedules[case.name], played.runs[case.name]
    assert ended(run, agent, schedule) == case.ended
    assert (run["error"] is None) == (case.ended.status != "failed")
    for method in METHODS:
        sent = agent.requests(method, schedule_id=str(schedule["id"]))
        ids = {(one.id, one.headers["idempotency-key"], str(one.params["task"])) for one in sent}
        assert len(ids) <= 1, "a repeat is the same request"


async def test_one_500_leaves_one_task_one_event_row_and_one_event_id(played: Played) -> None:
    """Known fault 1 of the incumbent: two task/create, two event/send with different ids, two event rows."""
    run, schedule = played.runs["event 500 once"], played.schedules["event 500 once"]
    events = await played.stack.sql(
        "SELECT id::text FROM events WHERE task_id::text = :id", id=run["task_id"]
    )
    tasks = await played.stack.sql(
        "SELECT id::text FROM tasks WHERE name LIKE :name", name=f"%{schedule['id']}%"
    )
    assert [row["id"] for row in tasks] == [run["task_id"]]
    event_id = events[0]["id"]
    assert [row["id"] for row in events] == [event_id]
    assert played.agents["event/send"].event_ids(str(schedule["id"])) == [event_id, event_id]


@pytest.mark.parametrize("name", ["message stream cut", "message stream hang", "message stream error"])
async def test_stream_that_breaks_off_keeps_its_partial_output(played: Played, name: str) -> None:
    texts = [part["content"] for part in played.runs[name]["output"]]
    assert texts == ["word0 word1 word2 "]


async def test_message_of_the_agent_turns_an_unknown_outcome_into_delivered(played: Played) -> None:
    run = played.runs["event hang"]
    content = {"type": "text", "author": "agent", "content": "I did get it"}
    await played.stack.ok("POST", "/messages", {"task_id": run["task_id"], "content": content})
    after = await played.stack.ok("GET", f"/runs/{run['id']}")
    assert (after["status"], after["reason"], after["error"]) == ("delivered", None, None)


@pytest.mark.parametrize(("acp_type", "status"), [("async", "delivered"), ("sync", "succeeded")])
async def test_refused_connection_is_tried_again_until_the_agent_is_up(
    stack: Stack, acp_type: Literal["async", "sync"], status: str
) -> None:
    agent = await stack.start_agent(acp_type)
    schedule = await paused_schedule(stack, agent, window_seconds=60)
    agent.process.kill()
    run_id = await trigger(stack, agent, schedule)

    async def tried() -> bool:
        run = await stack.ok("GET", f"/runs/{run_id}")
        return run["status"] == "due" and run["error"] is not None

    await stack.until(tried, "the first attempt refused")
    agent.start()
    await stack.until(lambda: has_ended(stack, run_id), "the run ended")
    run = await stack.ok("GET", f"/runs/{run_id}")
    assert (run["status"], run["reason"], run["error"]) == (status, None, None)
    assert set(agent.sent().values()) == {1}


async def test_refused_connection_ends_as_unreachable_when_the_window_is_over(stack: Stack) -> None:
    agent = await stack.start_agent("async")
    schedule = await paused_schedule(stack, agent)
    agent.process.kill()
    run_id = await trigger(stack, agent, schedule)
    await stack.until(lambda: has_ended(stack, run_id), "the run ended")
    run = await stack.ok("GET", f"/runs/{run_id}")
    assert (run["status"], run["reason"], run["attempt"]) == (
        "failed",
        "agent_unreachable",
        ATTEMPTS_IN_WINDOW,
    )
    assert agent.requests(*METHODS) == []


async def test_agent_killed_while_it_has_the_input_is_not_asked_again(stack: Stack) -> None:
    agent = await stack.start_agent("sync")
    schedule = await paused_schedule(stack, agent)
    await agent.script("message/send", Reply(hang="before"), repeat=True)
    run_id = await trigger(stack, agent, schedule)

    async def arrived() -> bool:
        return await agent.count("message/send") == 1

    await stack.until(arrived, "the input at the agent")
    agent.process.kill()
    agent.start()
    await stack.until(lambda: has_ended(stack, run_id), "the run ended")
    run = await stack.ok("GET", f"/runs/{run_id}")
    assert ended(run, agent, schedule) == Ended("failed", "outcome_unknown", 1, {"message/send": 1})


async def has_ended(stack: Stack, run_id: str) -> bool:
    """Whether a run has ended."""
    run = await stack.ok("GET", f"/runs/{run_id}")
    return run["finished_at"] is not None


async def test_hanging_agent_is_left_alone_after_timeouts_in_a_row(stack: Stack) -> None:
    """The rest of its page waits instead of each run paying a timeout of its own."""
    worker = stack.workers[0].process
    assert worker.terminate() == 0
    stack.start_worker(agent_timeouts_in_a_row=2, deliveries_per_agent=1)
    agent = await stack.start_agent("async")
    await agent.script("event/send", Reply(hang="before"), repeat=True)
    policies = {"retries": {"window_seconds": 3}}
    before = len(await stack.runs())
    due = await stack.create_page(agent, 6, policies=policies)
    await stack.until_finished(before + 6)
    rows = [row for row in await stack.runs() if row.due_at == due]
    assert Counter(row.outcome for row in rows) == {
        ("failed", "outcome_unknown"): 2,
        ("failed", "agent_unreachable"): 4,
    }
    assert await agent.count("event/send") == 2
