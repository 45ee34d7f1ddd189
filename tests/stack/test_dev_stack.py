"""The whole dev stack, with its real API, worker and demo agents."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentex.dev.ports import free_port
from agentex.dev.processes import wait_until
from tests.stack.dev_stack import REDIS, DevStack, run_printed
from tests.support.fault_agent import FaultAgent

pytestmark = pytest.mark.timeout(300)

MakeStack = Callable[..., DevStack]
EVERYTHING = {"api", "worker", "demo-async", "demo-sync", "temporal", "postgres", *REDIS}


def finished_runs(stack: DevStack) -> list[dict[str, Any]]:
    """The runs that the printed command lists and that were delivered."""
    runs = json.loads(run_printed(stack.printed_command("List its runs")))["runs"]
    return [run for run in runs if run["status"] == "delivered"]


def test_printed_curl_makes_a_schedule_that_fires_and_survives_a_restart(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    assert stack.children().keys() == EVERYTHING
    created = json.loads(run_printed(stack.printed_command("Create a schedule of every 10 s")))
    assert (created["name"], created["interval_seconds"]) == ("hello-every-10s", 10)
    wait_until(lambda: finished_runs(stack) != [], "a delivered run", 40)
    before = {run["id"] for run in finished_runs(stack)}
    stack.children()
    assert (stack.interrupt(), stack.left_over()) == (0, [])
    stack.start()
    assert before <= {run["id"] for run in finished_runs(stack)}
    wait_until(lambda: {run["id"] for run in finished_runs(stack)} - before != set(), "a run after it", 60)
    stack.children()
    assert (stack.interrupt(), stack.left_over()) == (0, [])


def test_start_shows_each_part_as_it_becomes_ready(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    output = stack.supervisor.output()
    parts = re.findall(r"^  (\S+) +ready after \d+\.\d s$", output, re.MULTILINE)
    assert parts == ["postgres", *REDIS, "temporal", "migrate", "api", "worker", "demo-async", "demo-sync"]
    assert all(stack.log_of(part).exists() for part in parts)


def test_no_agents_starts_none(make_stack: MakeStack) -> None:
    stack = make_stack("--no-agents")
    stack.start()
    assert stack.children().keys() == EVERYTHING - {"demo-async", "demo-sync"}
    assert "Agents   none of ours" in stack.supervisor.output()
    assert json.loads(run_printed(stack.printed_command("List its runs")))["runs"] == []


def test_an_agent_that_its_own_command_line_starts_is_called_on_this_machine(
    make_stack: MakeStack, tmp_path: Path
) -> None:
    stack = make_stack("--no-agents")
    stack.start()
    agent = FaultAgent(tmp_path, free_port())
    agent.start()
    try:
        # What `agentex agents run` registers unless it is told otherwise.
        url = agent.url.replace("127.0.0.1", "host.docker.internal")
        body = {"name": "mine", "description": "", "acp_url": url, "acp_type": "async"}
        registered = httpx2.post(f"{stack.url}/agents/register", json=body).json()
        path = f"{stack.url}/agents/{registered['id']}/rpc"
        assert httpx2.post(path, json={"method": "task/create"}).json()["error"] is None
    finally:
        agent.process.close()
    assert len(agent.requests("task/create")) == 1


def test_the_api_reads_the_redis_that_agents_are_told_of(make_stack: MakeStack) -> None:
    stack = make_stack("--no-agents")
    stack.start()
    found = re.findall(r"^Redis    .*REDIS_URL=(\S+)$", stack.supervisor.output(), re.MULTILINE)
    told = [stack.children()["api"].environ()["AGENTEX_REDIS_URL"]] if REDIS else []
    assert found == told


def test_agents_find_temporal_and_redis_where_they_were_after_another_start(make_stack: MakeStack) -> None:
    stack = make_stack("--no-agents")
    told: list[list[str]] = []
    for _ in range(2):
        stack.start()
        printed = stack.supervisor.output()
        told.append(re.findall(r"(?:TEMPORAL_ADDRESS|REDIS_URL)=(\S+)$", printed, re.MULTILINE))
        assert stack.interrupt() == 0
    assert len(told[0]) == (2 if REDIS else 1)
    assert told[0] == told[1]


def test_a_redis_of_ones_own_is_used_and_its_password_not_printed(make_stack: MakeStack) -> None:
    own = "redis://me:secret@127.0.0.1:1/0"
    stack = make_stack("--no-agents", environment={"AGENTEX_REDIS_URL": own})
    stack.start()
    assert "redis" not in stack.children()
    assert "REDIS_URL=redis://me:***@127.0.0.1:1/0" in stack.supervisor.output()
    assert "secret" not in stack.supervisor.output()


def test_two_stacks_run_side_by_side(make_stack: MakeStack) -> None:
    one, two = make_stack("--no-agents"), make_stack("--no-agents")
    for stack in (one, two):
        stack.start()
    assert one.children().keys() == two.children().keys()
    assert one.interrupt() == 0
    assert json.loads(run_printed(two.printed_command("List its runs")))["runs"] == []


def test_sigterm_stops_as_ctrl_c_does(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    stack.children()
    assert (stack.supervisor.terminate(60), stack.left_over()) == (0, [])


def test_second_ctrl_c_kills_at_once(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.start()
    stack.children()["worker"].suspend()
    stack.supervisor.send(signal.SIGINT)
    wait_until(lambda: "Stopping" in stack.supervisor.output(), "the first Ctrl-C taken", 10)
    assert (stack.interrupt(), stack.left_over()) == (0, [])


def test_ctrl_c_during_the_start_leaves_nothing(make_stack: MakeStack) -> None:
    stack = make_stack()
    stack.supervisor.start()
    wait_until((stack.data_directory / "logs" / "migrate.log").exists, "the migration starting", 30)
    stack.children()
    assert (stack.interrupt(), stack.left_over()) == (0, [])


def test_second_stack_on_the_same_folder_is_refused(make_stack: MakeStack) -> None:
    first = make_stack()
    first.start()
    second = make_stack(data_directory=first.data_directory)
    second.supervisor.start()
    code = second.supervisor.wait(30)
    assert (code, second.supervisor.output()) == (
        1,
        (
            f"agentex dev: another stack (process {first.supervisor.pid}) runs on "
            f"{first.data_directory.resolve()}; stop it, or give another folder with --data-dir"
        ),
    )
    assert first.children().keys() == EVERYTHING


def test_port_in_use_is_named_and_nothing_runs(make_stack: MakeStack) -> None:
    stack = make_stack()
    port = int(stack.url.rpartition(":")[2])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        said = stack.refused()
    assert said == (
        f"agentex dev: port {port} on 127.0.0.1 is in use; "
        "stop what listens there, or set AGENTEX_PORT to a free port"
    )
    assert not (stack.data_directory / "logs").exists()


def test_address_of_another_machine_is_not_called_a_port_in_use(make_stack: MakeStack) -> None:
    stack = make_stack(environment={"AGENTEX_HOST": "192.0.2.1"})
    port = stack.url.rpartition(":")[2]
    assert stack.refused() == (
        f"agentex dev: cannot listen on 192.0.2.1:{port} (AGENTEX_HOST, AGENTEX_PORT): "
        "Cannot assign requested address"
    )


def test_worker_port_that_was_asked_for_and_is_in_use_is_named(make_stack: MakeStack) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        said = make_stack(environment={"AGENTEX_WORKER_PORT": str(port)}).refused()
    assert said == f"agentex dev: port {port} is in use; set AGENTEX_WORKER_PORT to a free port"
