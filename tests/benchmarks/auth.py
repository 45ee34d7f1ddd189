"""What it costs to know who reads: the same reads from an API that asks for keys, and from one that does not.

Two API processes on one database, asked in turn, one client after the other.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from agentex.database import JsonObject
from agentex.dev.folder import secret_key
from agentex.dev.ports import free_port
from tests.benchmarks.stack import Stack
from tests.support.processes import ManagedProcess, agentex

REPEATS = 400
ADDED_TARGET_MS = 2


@dataclass(frozen=True)
class Read:
    """One kind of read: milliseconds without auth, and with a key of this server."""

    name: str
    open_p50: float
    keyed_p50: float

    @property
    def added_p50(self) -> float:
        """What auth adds."""
        return self.keyed_p50 - self.open_p50

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return {**asdict(self), "added_p50": self.added_p50}


async def reads(stack: Stack, directory: Path) -> list[Read]:
    """One agent, one task and a list of tasks, read by an admin and by a viewer."""
    with _keyed_api(stack, directory) as (url, environment):
        keys = {
            role: _made_key(environment, "--service-account", role, "--role", role)
            for role in ("admin", "viewer")
        }
        async with aiohttp.ClientSession() as http:
            agent = await _posted(
                http, f"{stack.api}/agents/register-build", {"name": "a", "description": ""}
            )
            paths = {"GET /agents/{id}": f"/agents/{agent['id']}", "GET /tasks": "/tasks"}
            measured = [
                await _measure(http, f"{name}, {role}", (stack.api + path, url + path), key)
                for name, path in paths.items()
                for role, key in keys.items()
            ]
    return measured


async def _measure(http: aiohttp.ClientSession, name: str, urls: tuple[str, str], key: str) -> Read:
    headers = {"authorization": f"Bearer {key}"}
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(-50, REPEATS):
        for url, times in zip(urls, taken, strict=True):
            began = time.perf_counter()
            async with http.get(url, headers=headers) as response:
                response.raise_for_status()
                await response.read()
            if number >= 0:
                times.append((time.perf_counter() - began) * 1000)
    return Read(name, *[statistics.median(times) for times in taken])


@contextmanager
def _keyed_api(stack: Stack, directory: Path) -> Generator[tuple[str, dict[str, str]]]:
    """Another API process on the same database, without its rate limits; and its environment."""
    port = free_port()
    environment = {
        "AGENTEX_DATABASE_URL": stack.database_url,
        "AGENTEX_PORT": str(port),
        "AGENTEX_AUTH": "api_keys",
        "AGENTEX_SECRET_KEY": secret_key(directory),
        "AGENTEX_RATE_LIMIT_PER_ADDRESS": "",
        "AGENTEX_RATE_LIMIT_PER_PRINCIPAL": "",
    }
    with ManagedProcess(
        agentex("serve"), environment=environment, log=directory / "keyed-api.log"
    ) as process:
        process.wait_until_ready(f"http://127.0.0.1:{port}/healthz")
        yield f"http://127.0.0.1:{port}", environment


def _made_key(environment: dict[str, str], *arguments: str) -> str:
    command = agentex("keys", "create", *arguments)
    made = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)
    return made.stdout.strip()


async def _posted(http: aiohttp.ClientSession, url: str, body: JsonObject) -> JsonObject:
    async with http.post(url, json=body) as response:
        response.raise_for_status()
        return await response.json()
