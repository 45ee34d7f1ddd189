"""Agents made with agentex-sdk, unmodified: a schedule on each fires, and its run ends as it should."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.support.contract_driver import MODES, Report, check_names, drive
from tests.support.contract_env import PYTHON_SETTING, SDK_MINORS, find_sdk_python, sdk_python
from tests.support.contract_stack import SDK_AGENTS, ContractStack

SDK_BASE = find_sdk_python()
pytestmark = [
    pytest.mark.xdist_group("contract-agents"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        SDK_BASE is None,
        reason=f"agentex-sdk needs Python 3.{' or 3.'.join(map(str, SDK_MINORS))}: none in {PYTHON_SETTING}, "
        "uv, pyenv or PATH",
    ),
]

Json = dict[str, Any]
INPUT = "Write the report"


def text(author: str, content: str, **changes: str) -> Json:
    whole = {"type": "text", "author": author, "content": content, "format": "plain", "style": "static"}
    return {**whole, "attachments": None, **changes}


ASKED = text("user", INPUT)
ANSWERED = text("agent", f"You said: {INPUT}")
# What a task holds when the schedule's input has been answered; TASK stands for its id.
SAID: dict[str, list[Json]] = {
    "sync-plain": [
        ASKED,
        {**ANSWERED, "format": "markdown"},
        {
            "type": "data",
            "author": "agent",
            "style": "static",
            "data": {"letters": len(INPUT), "task": "TASK"},
        },
    ],
    "sync-streaming": [
        ASKED,
        {**ANSWERED, "content": f"You said: {INPUT} "},
        {
            "type": "tool_request",
            "author": "agent",
            "style": "static",
            "tool_call_id": "c1",
            "name": "search",
            "arguments": {"q": "x"},
        },
    ],
    "async-base": [text("agent", "Hello from async-base"), ASKED, ANSWERED],
    "async-streaming": [ASKED, {**ANSWERED, "content": f"You said: {INPUT} "}],
    "multi-turn": [text("agent", f"Turn 1: {INPUT}")],
    "traced": [text("agent", f"{len(INPUT)} letters")],
    "batch-events": [text("agent", f"Batch: {INPUT}")],
    "langgraph-memory": [text("agent", f"Turn 1: {INPUT}")],
    "temporal": [text("agent", "Hello from temporal"), ASKED, ANSWERED],
}
# Every agent by delivery; async ones also until they close their task, which their params ask for.
FIRES = [
    (agent.name, finishes_on)
    for agent in SDK_AGENTS
    for finishes_on in ("delivery", "task")
    if finishes_on == "delivery" or agent.acp_type == "async"
]
# From the instant of all schedules to the last agent's last message, on a machine that others use, too.
WITHIN_SECONDS = 60
SYNC = {agent.name for agent in SDK_AGENTS if agent.acp_type == "sync"}


@pytest.fixture(scope="session")
async def agents(stack: ContractStack) -> dict[str, Json]:
    """All agents, running and registered, by name."""
    assert SDK_BASE is not None
    python = await asyncio.to_thread(sdk_python, SDK_BASE)
    await stack.start_sdk_agents(python)
    return {one["name"]: one for one in await stack.ok("GET", "/agents") if one["name"] in SAID}


@pytest.fixture(scope="session")
async def due(stack: ContractStack) -> datetime:
    """The instant at which all schedules fire: far enough for all of them to be made before it."""
    return await stack.instant(5, every=2)


@pytest.fixture(scope="session")
async def schedules(
    stack: ContractStack, agents: dict[str, Json], due: datetime
) -> dict[tuple[str, str], Json]:
    """One schedule each, all of one instant."""

    async def schedule(name: str, finishes_on: str) -> Json:
        return await stack.fire_once(
            agents[name]["id"],
            due,
            initial_input={"content": INPUT},
            task_params={"complete": finishes_on == "task"},
            policies={"finishes_on": finishes_on},
        )

    made = await asyncio.gather(*[schedule(*fire) for fire in FIRES])
    return dict(zip(FIRES, made, strict=True))


@pytest.mark.parametrize("agent", SDK_AGENTS, ids=lambda agent: agent.name)
def test_registered_itself(agents: dict[str, Json], agent: Any) -> None:
    found = agents[agent.name]
    assert (found["acp_type"], found["status"]) == (agent.acp_type, "Ready")
    assert found["description"] == f"{agent.name} of the contract tests"


@pytest.mark.parametrize(("name", "finishes_on"), FIRES, ids=lambda word: word)
async def test_a_schedule_fires_and_its_run_ends(
    stack: ContractStack,
    schedules: Mapping[tuple[str, str], Json],
    due: datetime,
    name: str,
    finishes_on: str,
) -> None:
    schedule = schedules[name, finishes_on]
    succeeds = name in SYNC or finishes_on == "task"
    run = await _ended(stack, schedule["id"], due)
    assert (run["status"], run["reason"], run["error"]) == (
        "succeeded" if succeeds else "delivered",
        None,
        None,
    )
    assert (datetime.fromisoformat(run["due_at"]), run["cause"], run["attempt"]) == (due, "cadence", 1)

    task_id = run["task_id"]
    expected = SAID[name]
    seconds = await _left(stack, due)
    what = f"{len(expected)} messages of {name}"
    await stack.until(lambda: _has_said(stack, task_id, len(expected)), what, seconds)
    said = _without_id(await stack.said(task_id), task_id)
    if name == "temporal":
        # Its workflow greets beside the first event: either activity may be the first to come.
        said.sort(key=lambda message: message != expected[0])
    assert said == expected
    task = await stack.ok("GET", f"/tasks/{task_id}")
    assert task["name"].startswith(f"scheduled-run:{schedule['id']}:")
    assert task["task_metadata"]["schedule_id"] == schedule["id"]
    assert task["status"] == ("COMPLETED" if finishes_on == "task" else "RUNNING")


async def test_the_output_of_a_sync_run_is_the_answer(
    stack: ContractStack, schedules: Mapping[tuple[str, str], Json], due: datetime
) -> None:
    run = await _ended(stack, schedules["sync-plain", "delivery"]["id"], due)
    assert _without_id(run["output"], run["task_id"]) == SAID["sync-plain"][1:]


@pytest.fixture(scope="session")
async def talks(stack: ContractStack, agents: dict[str, Json]) -> Mapping[str, Report]:
    """What came of the client's talks with these agents."""
    address = str(agents["async-base"]["id"])
    runs = [drive(mode, stack.url, address, stack.directory, "--module", "talks") for mode in MODES]
    return dict(zip(MODES, await asyncio.gather(*runs), strict=True))


@pytest.mark.parametrize("check", check_names("talks"))
@pytest.mark.parametrize("mode", MODES)
def test_talk(talks: Mapping[str, Report], mode: str, check: str) -> None:
    error = talks[mode].checks[check]
    if error is not None:
        pytest.fail(error, pytrace=False)


async def _ended(stack: ContractStack, schedule_id: str, due: datetime) -> Json:
    """The run, once it has ended."""
    found: list[Json] = []

    async def ended() -> bool:
        run = await stack.run_of(schedule_id)
        found[:] = [run] if run is not None and run["finished_at"] is not None else []
        return found != []

    await stack.until(ended, "the end of the run", await _left(stack, due))
    return found[0]


async def _left(stack: ContractStack, due: datetime) -> float:
    """How long a test may still wait: all of them wait for what began at one instant."""
    return max(WITHIN_SECONDS - (await stack.now() - due).total_seconds(), 1)


async def _has_said(stack: ContractStack, task_id: str, count: int) -> bool:
    said = await stack.ok("GET", f"/messages?task_id={task_id}")
    return len(said) >= count and not any(one["streaming_status"] == "IN_PROGRESS" for one in said)


def _without_id(contents: list[Json], task_id: str) -> list[Json]:
    """The contents with TASK where an agent has told the task's id."""
    told = {"task": task_id}
    return [
        {**one, "data": {**one["data"], "task": "TASK"}}
        if told.items() <= one.get("data", {}).items()
        else one
        for one in contents
    ]
