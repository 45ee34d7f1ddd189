"""AGENTEX_AUTH=api_keys: unmodified agents and clients, with keys that they were given."""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from agentex.dev.ports import free_port
from tests.support.contract_driver import MODES, Report, check_names, drive
from tests.support.contract_env import PYTHON_SETTING, SDK_MINORS, find_sdk_python, sdk_python
from tests.support.contract_stack import SDK_AGENTS, ContractStack
from tests.support.postgres import PostgresServer, open_folder
from tests.support.processes import ManagedProcess, agentex
from tests.support.temporal import start_temporal

SDK_BASE = find_sdk_python()
pytestmark = [
    pytest.mark.xdist_group("contract-keyed"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        SDK_BASE is None,
        reason=f"agentex-sdk needs Python 3.{' or 3.'.join(map(str, SDK_MINORS))}: none in {PYTHON_SETTING}, "
        "uv, pyenv or PATH",
    ),
]

Json = dict[str, Any]
AGENTS = [agent for agent in SDK_AGENTS if agent.name in {"sync-plain", "async-base"}]
# The SDK tries three times, with 15 s between them.
GIVES_UP_SECONDS = 60


@dataclass(frozen=True)
class Keyed:
    """A stack with its agents, and one that was given no key."""

    stack: ContractStack
    keys: Mapping[str, str]
    refused: ManagedProcess


@pytest.fixture(scope="module")
async def keyed(postgres: PostgresServer) -> AsyncIterator[Keyed]:
    """As the documents tell an operator to do it: keys by the command line, then the agents."""
    assert SDK_BASE is not None
    python = await asyncio.to_thread(sdk_python, SDK_BASE)
    directory = open_folder()
    temporal = start_temporal(directory)
    url = postgres.create_database("migrated")
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    asks = {"auth": "api_keys", "secret_key": secret, "agent_networks": "127.0.0.0/8"}
    stack = ContractStack(directory, url, temporal.address, **asks)
    try:
        stack.start()
        keys: dict[str, str] = dict(
            zip(("admin", "editor", "async-base", "token"), await _made(stack), strict=True)
        )
        stack.headers = {"x-api-key": keys["token"]}
        keys["sync-plain"] = await _registered(stack)
        stack.headers = {"x-api-key": keys["editor"]}
        refused = stack.sdk_agent(AGENTS[1], python, free_port())
        refused.start()
        stack.agent_keys = {name: keys[name] for name in ("async-base", "sync-plain")}
        await stack.start_sdk_agents(python, agents=AGENTS)
        yield Keyed(stack, keys, refused)
    finally:
        await stack.close()
        temporal.stop()
        postgres.drop_database(url)
        shutil.rmtree(directory)


async def _made(stack: ContractStack) -> list[str]:
    """Keys of an admin, an editor and an agent, and a registration token, made before there is anybody."""
    wanted = (
        ["--admin"],
        ["--user", "eve", "--role", "editor"],
        ["--agent", "async-base"],
        ["--user", "eve", "--role", "editor", "--scope", "agent.create"],
    )
    return await asyncio.gather(*[_create_key(stack, *options) for options in wanted])


async def _create_key(stack: ContractStack, *options: str) -> str:
    process = ManagedProcess(
        agentex("keys", "create", *options),
        environment=stack.environment,
        log=stack.directory / f"keys{'-'.join(options)}.log",
    )
    process.start()
    assert await asyncio.to_thread(process.wait) == 0, process.output()
    return process.output().strip()


async def _registered(stack: ContractStack) -> str:
    """The key of an agent that its pipeline has registered before it is started."""
    body = {"name": "sync-plain", "description": "x", "acp_url": "http://127.0.0.1:9", "acp_type": "sync"}
    return (await stack.ok("POST", "/agents/register", body))["agent_api_key"]


@pytest.fixture(scope="module")
async def reports(keyed: Keyed) -> Mapping[str, Report]:
    """What came of the checks, in both modes side by side."""
    given = {"EDITOR_KEY": keyed.keys["editor"], "AGENT_KEY": keyed.keys["async-base"]}
    runs = [
        drive(mode, keyed.stack.url, "", keyed.stack.directory, "--module", "keyed", variables=given)
        for mode in MODES
    ]
    return dict(zip(MODES, await asyncio.gather(*runs), strict=True))


async def test_agents_registered_themselves_with_their_keys(keyed: Keyed) -> None:
    found = {one["name"]: one for one in await keyed.stack.ok("GET", "/agents")}
    assert {name: one["status"] for name, one in found.items()} == {
        "async-base": "Ready",
        "sync-plain": "Ready",
    }
    owners = await keyed.stack.sql("SELECT name, owner FROM agents ORDER BY name")
    assert [tuple(row.values()) for row in owners] == [
        ("async-base", "agent:async-base"),
        ("sync-plain", "user:eve"),
    ]


@pytest.mark.parametrize("check", check_names("keyed"))
@pytest.mark.parametrize("mode", MODES)
def test_check(reports: Mapping[str, Report], mode: str, check: str) -> None:
    error = reports[mode].checks[check]
    if error is not None:
        pytest.fail(error, pytrace=False)


async def test_no_key_stands_in_a_log_or_a_table(keyed: Keyed, reports: Mapping[str, Report]) -> None:
    # What the command line printed, and the agents' own logs, are theirs.
    files = [keyed.stack.directory / "api.log", *keyed.stack.directory.glob("worker-*.log")]
    logs = "".join(path.read_text() for path in files)
    tables = " UNION ALL ".join(
        f"SELECT x::text AS row FROM {table} x"  # noqa: S608 - our own names
        for table in ("agents", "api_keys", "members", "idempotency_keys", "runs", "tasks", "messages")
    )
    kept = logs + "".join(row["row"] for row in await keyed.stack.sql(tables))
    assert len(files) == 2
    assert "agx_" in kept
    assert [name for name, key in keyed.keys.items() if key in kept] == []


async def test_an_agent_without_a_key_gives_up(keyed: Keyed) -> None:
    code = await asyncio.to_thread(keyed.refused.wait, GIVES_UP_SECONDS)
    assert code != 0
    assert "Failed to register agent. Status: 401" in keyed.refused.output(1_000)
