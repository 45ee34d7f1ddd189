"""Two APIs without a balancer before them: a client that takes turns, and the restart of one process.

apis = TwoApis(stack)
apis.start()
schedule = await apis.call("POST", path, body, key="k1")   # asks the other one when this one is away
await end(apis.processes[0], drain_seconds=30)
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from agentex.dev.ports import free_port
from tests.support.fault_stack import CALL_SECONDS, Stack
from tests.support.processes import ManagedProcess, agentex

# Turns that a request takes at most: one is away at a time, and each may go just before it is asked.
MOST_TURNS = 6


class TwoApis:
    """The stack's own API and one more; `met` counts why a request was made again."""

    def __init__(self, stack: Stack) -> None:
        port = free_port()
        environment = stack.environment | {"AGENTEX_PORT": str(port)}
        log = stack.directory / "api-2.log"
        second = ManagedProcess(agentex("serve"), environment=environment, log=log)
        self.processes = [stack.api, second]
        self.urls = [stack.url, f"http://127.0.0.1:{port}"]
        self.met: Counter[str] = Counter()
        self._turn = 0
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Start both; returns when both answer."""
        for process in self.processes:
            process.start()
        for process, url in zip(self.processes, self.urls, strict=True):
            process.wait_until_ready(f"{url}/readyz")

    async def call(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Any:
        """The body of the 200 that one of them gives; the other one is asked when one is away.

        Give a key to what must not be done twice: a connection may be lost behind the request.
        """
        headers = {"Idempotency-Key": key} if key else {}
        for _ in range(MOST_TURNS):
            self._turn += 1
            place = self._turn % len(self.urls)
            try:
                status, text = await self._ask(f"{self.urls[place]}{path}", method, body, headers)
            except aiohttp.ClientConnectorError:
                self.met[f"refused by {place}"] += 1
                continue
            except aiohttp.ClientConnectionError:
                self.met["lost"] += 1
                continue
            if status == 503:
                self.met["503"] += 1
                continue
            assert status == 200, f"{method} {path}: {status} {text}"
            return json.loads(text)
        raise AssertionError(f"{method} {path}: no answer in {MOST_TURNS} turns; {self.met}")

    async def _ask(self, url: str, method: str, body: object, headers: dict[str, str]) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS))
        async with self._session.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def close(self) -> None:
        """End the second one; the stack ends its own."""
        if self._session is not None:
            await self._session.close()
        self.processes[1].close()


async def end(process: ManagedProcess, drain_seconds: float) -> None:
    """SIGTERM; it must end by itself within its drain, with code 0."""
    process.send(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, drain_seconds) == 0, process.output()


async def repeat(stop: asyncio.Event, step: Callable[[int], Awaitable[None]]) -> None:
    """Take a step again and again until it is to stop, each time with the next number."""
    count = 0
    while not stop.is_set():
        await step(count)
        count += 1
