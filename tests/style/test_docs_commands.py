"""Every command of the documents is run: here, or by the test that is named here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentex.app import create_app
from agentex.resources import Resources
from agentex.settings import Settings
from tests.api.ledger.stage import fetch
from tests.style.documents import DOCUMENTS, ROOT, blocks, commands
from tests.support.api import create_task, register
from tests.support.postgres import PostgresServer
from tests.support.processes import agentex

API = "http://127.0.0.1:5003"
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
MIGRATE = ".venv/bin/agentex migrate"

COMMANDS = sorted({command for path in DOCUMENTS for command in commands(path)})
QUEUES = "tests/faults/test_queues.py::test_workers_of_some_queues_do_the_work_together"
DRAIN = "tests/faults/test_drain.py::test_sigterm_awaits_a_hundred_open_answers_and_exits"
KEYED = "tests/contract/test_keyed.py::test_agents_registered_themselves_with_their_keys"
RECORDED = "tests/replay/test_replay.py::test_a_play_is_recorded_anew"
# What takes processes, and the test that starts them.
ELSEWHERE = {
    "./dev.sh": "tests/stack/test_dev_stack.py::test_sigterm_stops_as_ctrl_c_does",
    ".venv/bin/agentex serve": "tests/api/app/test_serve.py::test_a_stop_lets_a_request_in_flight_end",
    ".venv/bin/agentex worker": DRAIN,
    "AGENTEX_WORKER_QUEUES=ticks,deliver .venv/bin/agentex worker": QUEUES,
    "AGENTEX_WORKER_QUEUES=answers AGENTEX_WORKER_PORT=5014 .venv/bin/agentex worker": QUEUES,
    "curl -s http://127.0.0.1:5004/readyz": QUEUES,
    "curl -s http://127.0.0.1:5004/metrics": QUEUES,
    ".venv/bin/python -m tests.replay.record NAME": RECORDED,
    ".venv/bin/agentex keys create --admin": KEYED,
    ".venv/bin/agentex keys create --agent greeter": KEYED,
    ".venv/bin/agentex keys create --service-account ci --role editor --scope agent.create": KEYED,
}


def beginning_with(*words: str) -> list[str]:
    """The commands that begin so and are not run elsewhere."""
    return [command for command in COMMANDS if command.startswith(words) and command not in ELSEWHERE]


MAKE = beginning_with("make ")
PYTEST = beginning_with(".venv/bin/pytest ")
CURL = [command for command in beginning_with("curl ") if API in command]
PG = beginning_with("pg_dump ", "pg_restore ")


def test_every_command_is_run() -> None:
    assert set(COMMANDS) - {*ELSEWHERE, *MAKE, *PYTEST, *CURL, *PG, MIGRATE} == set()


@pytest.mark.parametrize(("command", "test"), ELSEWHERE.items())
def test_the_test_that_is_named_exists(command: str, test: str) -> None:
    path, _, name = test.partition("::")
    assert command in COMMANDS
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_the_target(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_make_help_lists_the_targets_of_the_documents() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert {shlex.split(command)[1] for command in MAKE} - targets == set()


@pytest.mark.parametrize("command", PYTEST)
def test_pytest_finds_what_it_is_to_run(command: str) -> None:
    paths = [word for word in shlex.split(command)[1:] if not word.startswith("-")]
    assert paths != []
    assert [path for path in paths if not any((ROOT / path).rglob("test_*.py"))] == []


@dataclass(frozen=True)
class Called:
    """An API in process, with what the placeholders of the documents stand for."""

    client: httpx2.AsyncClient
    placeholders: dict[str, str]


@pytest.fixture
async def called(settings: Settings, resources: Resources) -> AsyncIterator[Called]:
    """An agent, a schedule, a run of it, and a task that was closed long ago."""
    transport = httpx2.ASGITransport(app=create_app(settings, resources=resources))
    async with httpx2.AsyncClient(transport=transport, base_url=API) as client:
        agent = await register(client)
        body: dict[str, Any] = {
            "name": "nightly",
            "interval_seconds": 3600,
            "initial_input": {"content": "Go"},
        }
        schedule = (await client.post(f"/agents/{agent['id']}/schedules", json=body)).json()
        await client.post(f"/agents/{agent['id']}/schedules/{schedule['id']}/trigger")
        run = (await client.get("/runs")).json()["runs"][0]
        answering = await register(client, name="answering", acp_type="sync")
        task = await create_task(client, answering)
        await client.post(f"/tasks/{task['id']}/complete")
        await fetch(resources, "UPDATE tasks SET updated_at = now() - interval '31 days'")
        placeholders = {"SCHEDULE_ID": schedule["id"], "RUN_ID": run["id"], "TASK_ID": task["id"]}
        yield Called(client, {"AGENT_ID": agent["id"], **placeholders})
        await resources.settle_background()


def request_of(command: str) -> tuple[str, str, dict[str, str], str | None]:
    """Method, URL, headers and body of a curl command. Fails for an option that is not of these."""
    words = shlex.split(command)[1:]
    url, headers, options = "", dict[str, str](), dict[str, str]()
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word in {"-X", "-d"}:
            options[word] = words.pop(0)
        elif word != "-s":
            assert word.startswith(API), f"{word!r} in {command!r}"
            url = word
    body = options.get("-d")
    return options.get("-X", "GET" if body is None else "POST"), url, headers, body


@pytest.mark.parametrize("command", CURL)
async def test_curl_is_answered(called: Called, command: str) -> None:
    for placeholder, value in called.placeholders.items():
        command = command.replace(placeholder, value)
    method, url, headers, body = request_of(command)
    answer = await called.client.request(method, url, headers=headers, content=body)
    # No Temporal listens here, and that is what /readyz says.
    assert answer.status_code == (503 if url.endswith("/readyz") else 200), answer.text


@pytest.mark.parametrize("statement", [one for path in DOCUMENTS for one in blocks(path, "sql")])
def test_sql_is_right(postgres: PostgresServer, database_url: str, statement: str) -> None:
    postgres.execute(statement, url=database_url)


def test_migrate_makes_the_schema_of_an_empty_database(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    assert MIGRATE in COMMANDS
    environment = os.environ | {"AGENTEX_DATABASE_URL": url}
    subprocess.run(agentex(shlex.split(MIGRATE)[1]), env=environment, check=True)
    assert postgres.execute(TABLES, url=url) == postgres.execute(
        TABLES, url=postgres.create_database("migrated")
    )


def test_a_backup_is_restored_with_the_commands(postgres: PostgresServer, tmp_path: Path) -> None:
    old, new = postgres.create_database("migrated"), postgres.create_database()
    postgres.execute("INSERT INTO schedule_totals VALUES (gen_random_uuid(), 7, now())", url=old)
    dump, restore = PG
    for command, url in ((dump, old), (restore, new)):
        path = f"{postgres.postgres.home.binaries}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "AGENTEX_DATABASE_URL": url}
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True)
    for question in (TABLES, "SELECT * FROM alembic_version", "SELECT * FROM schedule_totals"):
        assert postgres.execute(question, url=new) == postgres.execute(question, url=old) != ""
