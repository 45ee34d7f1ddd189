"""The scriptable agent as a process of its own: it can be killed, and its record outlives it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import cast

import aiohttp

from tests.support.acp_replies import JsonObject, Reply, Script
from tests.support.acp_server import RecordedRequest, read_record
from tests.support.processes import ManagedProcess, python_module

# The methods that carry a run's input: what must not arrive twice.
INPUT_METHODS = ("event/send", "message/send")
ROOT = Path(__file__).parents[2]


class FaultAgent:
    """One agent on a port of its own; `id` and `name` are those of its registration."""

    def __init__(self, directory: Path, port: int, *, keepalive_seconds: float = 75) -> None:
        self.id = ""
        self.name = f"agent-{port}"
        self.url = f"http://127.0.0.1:{port}"
        self.record = directory / f"{self.name}.jsonl"
        self.record.touch()
        options = ["--port", str(port), "--record", str(self.record)]
        options += ["--keepalive-seconds", str(keepalive_seconds)]
        self.process = ManagedProcess(
            python_module("tests.support.acp_server", *options),
            environment={"PYTHONPATH": str(ROOT)},
            log=directory / f"{self.name}.log",
        )

    def start(self) -> None:
        """Start it, for the first time or again on the same port."""
        self.process.start()
        self.process.wait_until_ready(f"{self.url}/healthz")

    async def script(
        self, method: str, *replies: Reply, repeat: bool = False, schedule_id: str | None = None
    ) -> None:
        """Replies to the next requests of this method, of one schedule's tasks if named."""
        task_name = f"scheduled-run:{schedule_id}:*" if schedule_id else "*"
        document = asdict(Script(method, list(replies), repeat, task_name))
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/script", json=document) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def release(self) -> None:
        """Let the requests go on that hang now."""
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/release") as answer:
            assert answer.status == 200

    async def count(self, method: str) -> int:
        """How many requests of a method this process has had."""
        methods = cast("dict[str, int]", (await self._counts())["methods"])
        return methods.get(method, 0)

    async def hanging(self) -> int:
        """How many requests hang now."""
        return cast("int", (await self._counts())["hanging"])

    async def _counts(self) -> JsonObject:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/requests") as answer:
            return cast("JsonObject", json.loads(await answer.read()))

    def requests(self, *methods: str, schedule_id: str | None = None) -> list[RecordedRequest]:
        """All requests of these methods, over all its lives, in the order of arrival."""
        found = [request for request in read_record(self.record) if request.method in methods]
        if schedule_id is None:
            return found
        return [
            request for request in found if str(_part(request, "task")["name"]).split(":")[1] == schedule_id
        ]

    def sent(self) -> Counter[str]:
        """How often each task's input has arrived, by task id."""
        return Counter(str(_part(request, "task")["id"]) for request in self.requests(*INPUT_METHODS))

    def event_ids(self, schedule_id: str | None = None) -> list[str]:
        """The event ids of all event/send, in the order of arrival."""
        found = self.requests("event/send", schedule_id=schedule_id)
        return [str(_part(request, "event")["id"]) for request in found]


def _part(request: RecordedRequest, name: str) -> JsonObject:
    return cast("JsonObject", request.params[name])
