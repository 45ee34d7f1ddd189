"""Parts of the dev stack that crash, during the start and after it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from agentex.dev.processes import wait_until
from tests.stack.dev_stack import REDIS, DevStack, run_printed
from tests.support.processes import answers

pytestmark = pytest.mark.timeout(300)

MakeStack = Callable[..., DevStack]
# The worker before the servers that it has to live without for a while.
VICTIMS = ("demo-async", "demo-sync", "api", "worker", "temporal", "postgres", *REDIS)


def crash(stack: DevStack, name: str) -> None:
    """Kill a part and wait until there is another in its place."""
    killed = stack.children()[name]
    killed.kill()
    wait_until(lambda: stack.children().get(name, killed) != killed, f"{name} started again", 60)


def delivered(stack: DevStack) -> set[str]:
    """The ids of the delivered runs; none while the API is away."""
    if not answers(f"{stack.url}/readyz"):
        return set()
    runs = json.loads(run_printed(stack.printed_command("List its runs")))["runs"]
    return {run["id"] for run in runs if run["status"] == "delivered"}


def test_crashed_parts_are_started_again_and_schedules_go_on(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    run_printed(stack.printed_command("Create a schedule of every 10 s"))
    for victim in VICTIMS:
        crash(stack, victim)
        wait_until(lambda: f"{victim} started again" in stack.supervisor.output(), "the line about it", 10)  # noqa: B023 (called at once)
        line = f"agentex dev: {victim} ended with signal SIGKILL; see {stack.log_of(victim)}; "
        assert f"{line}starting it again in 1 s" in stack.supervisor.output()
    before = delivered(stack)
    # Temporal came back empty: the sweep has to give it its Schedules first.
    wait_until(lambda: delivered(stack) - before != set(), "a run after the crashes", 120)
    stack.children()
    assert (stack.interrupt(), stack.left_over()) == (0, [])


def test_part_that_crashes_during_the_start_ends_the_stack_with_one_line(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.supervisor.start()
    wait_until(lambda: "demo-sync" in stack.children(), "the demo agent starting", 60)
    stack.children()["demo-sync"].kill()
    assert stack.supervisor.wait(60) == 1
    said = stack.supervisor.output().splitlines()
    complaint = f"agentex dev: demo-sync ended with signal SIGKILL; see {stack.log_of('demo-sync')}"
    assert [line for line in said if not line.startswith(("Starting in", "  "))] == [complaint]
    assert stack.left_over() == []


def test_stop_while_a_crashed_part_waits_for_its_start(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    stack.children()["demo-sync"].kill()
    wait_until(lambda: "starting it again" in stack.supervisor.output(), "the crash noticed", 30)
    stack.children()
    assert (stack.interrupt(), stack.left_over()) == (0, [])
