"""A scriptable ACP agent: answers as a real one by default, and misbehaves when told to.

In a test:

    async with AcpServer() as server:
        server.script("event/send", [Reply(status=500), Reply()])
        ...
        assert [request.method for request in server.requests] == ["event/send", "event/send"]

As a process: `python -m tests.support.acp_server --port 28100 --record requests.jsonl`; read the record with
`read_record(path)`. Over HTTP: POST /script {"method","replies":[{Reply's fields}],"repeat","task_name"},
POST /release, GET /requests (counts), GET /healthz (scripted as the method "healthz").
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections import Counter, deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import cast

from aiohttp import web
from pydantic import JsonValue, TypeAdapter

from tests.support.acp_replies import (
    JsonObject,
    Reply,
    Script,
    answer_id,
    break_off,
    default_answer,
    error_of,
    line,
    text_deltas,
    whole_answer,
)

# A benchmark's answers must not wait for the record's disk: a line is one write of O_APPEND, unsynced.
_RECORD_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


@dataclass(frozen=True)
class RecordedRequest:
    """A request as it arrived; `monotonic` and `at` (Unix time) in seconds, header names in lower case."""

    method: str
    params: JsonObject
    id: JsonValue
    headers: dict[str, str]
    monotonic: float
    at: float


_OK = Reply()
_script = TypeAdapter(Script)


@dataclass
class _Running:
    script: Script
    left: deque[Reply]

    def next(self) -> Reply | None:
        if len(self.left) == 1 and self.script.repeat:
            return self.left[0]
        return self.left.popleft() if self.left else None


class AcpServer:
    """An agent on 127.0.0.1; `url` is its acp_url once it is entered.

    keepalive_seconds: when it closes an idle connection. record: appends each request as a JSON line there,
    and keeps only counts in memory.
    """

    def __init__(self, port: int = 0, *, keepalive_seconds: float = 75, record: Path | None = None) -> None:
        self.requests: list[RecordedRequest] = []
        self.counts: Counter[str] = Counter()
        self.hanging = 0
        self.dropped = 0
        # Requests for /healthz, which are no calls and are not recorded.
        self.probes = 0
        # Requests that are being answered, and the most there ever were at once.
        self.open = 0
        self.most_open = 0
        self.connections: set[object] = set()
        self._port = port
        self._keepalive_seconds = keepalive_seconds
        self._scripts: list[_Running] = []
        self._released = asyncio.Event()
        self._changed = asyncio.Event()
        self._record_fd = os.open(record, _RECORD_FLAGS, 0o644) if record else None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> AcpServer:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/api", self._api)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_route("*", "/own/{path:.*}", self._own)
        app.router.add_post("/script", self._take_script)
        app.router.add_post("/release", self._take_release)
        app.router.add_get("/requests", self._tell_requests)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=self._keepalive_seconds,
            handler_cancellation=True,
            shutdown_timeout=0.1,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=1024).start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._record_fd is not None:
            os.close(self._record_fd)

    def script(
        self, method: str, replies: list[Reply], *, repeat: bool = False, task_name: str = "*"
    ) -> None:
        """The next requests of this method (and task) get these replies, then the default ones again.

        repeat: the last reply stays. Scripts are asked in the order they were given.
        """
        self._add(Script(method, replies, repeat, task_name))

    def _add(self, script: Script) -> None:
        self._scripts.append(_Running(script, deque(script.replies)))

    def release(self) -> None:
        """Lets the requests go on that hang now."""
        self._released.set()
        self._released = asyncio.Event()

    async def arrived(self, count: int, method: str | None = None) -> None:
        """Returns when that many requests (of one method) have come in."""
        while (self.counts[method] if method else self.counts.total()) < count:
            await self._changed.wait()

    async def is_probed(self, count: int = 1) -> None:
        """Returns when its health has been asked for so often."""
        while self.probes < count:
            await self._changed.wait()

    async def is_hanging(self, count: int = 1) -> None:
        """Returns when that many requests hang."""
        while self.hanging < count:
            await self._changed.wait()

    async def has_dropped(self, count: int = 1) -> None:
        """Returns when that many callers have gone away before they were answered."""
        while self.dropped < count:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _api(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        document = cast("JsonObject", json.loads(body))
        method = str(document["method"])
        self._remember(request, body, document)
        reply = self._reply(method, document) if self._scripts else _OK
        if reply is _OK:
            return default_answer(method, document.get("id"))
        return await self._play_counted(reply, request, document)

    async def _play_counted(
        self, reply: Reply, request: web.Request, document: JsonObject
    ) -> web.StreamResponse:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._play(reply, request, document)
        except asyncio.CancelledError:
            self.dropped += 1
            self._notify()
            raise
        finally:
            self.open -= 1

    def _remember(self, request: web.Request, body: bytes, document: JsonObject) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.counts[str(document["method"])] += 1
        if request.transport is not None:
            self.connections.add(request.transport.get_extra_info("peername"))
        if self._record_fd is None:
            self.requests.append(_recorded(document, headers, time.monotonic(), time.time()))
        else:
            start = json.dumps({"monotonic": time.monotonic(), "at": time.time(), "headers": headers})
            # A raw newline in JSON stands between tokens only, so the line needs no second dump.
            entry = start[:-1].encode() + b', "request": ' + body.replace(b"\n", b" ") + b"}\n"
            os.write(self._record_fd, entry)
        self._notify()

    def _reply(self, method: str, document: JsonObject) -> Reply:
        task_name = _task_name(document)
        for running in self._scripts:
            script = running.script
            if script.method == method and fnmatchcase(task_name, script.task_name):
                reply = running.next()
                if reply is not None:
                    return reply
        return _OK

    async def _play(self, reply: Reply, request: web.Request, document: JsonObject) -> web.StreamResponse:
        if reply.delay_seconds:
            await asyncio.sleep(reply.delay_seconds)
        if reply.hang == "before":
            await self._hang()
        if reply.close != "no" or reply.raw is not None:
            return break_off(request, reply)
        if reply.updates is not None or reply.deltas or reply.tail or reply.cut:
            return await self._stream(reply, request, document)
        return whole_answer(reply, document)

    async def _hang(self) -> None:
        self.hanging += 1
        self._notify()
        try:
            await self._released.wait()
        finally:
            self.hanging -= 1

    async def _stream(self, reply: Reply, request: web.Request, document: JsonObject) -> web.StreamResponse:
        response = web.StreamResponse(headers=reply.headers)
        response.content_type = reply.content_type or "application/x-ndjson"
        await response.prepare(request)
        for update in reply.updates if reply.updates is not None else text_deltas(reply.deltas):
            await response.write(line(answer_id(reply, document), result=update))
        if reply.error_code is not None:
            await response.write(line(answer_id(reply, document), error=error_of(reply)))
        if reply.tail:
            await response.write(reply.tail.encode())
        if reply.hang == "in_stream":
            await self._hang()
        if reply.cut and request.transport is not None:
            request.transport.close()
            return response
        await response.write_eof()
        return response

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        self.probes += 1
        self._notify()
        reply = self._reply("healthz", {})
        if reply == _OK:
            return web.json_response({"status": "healthy", "agent_id": None})
        return await self._play_counted(reply, request, {"method": "healthz"})

    async def _own(self, request: web.Request) -> web.Response:
        return web.json_response({"own": request.method})

    async def _take_script(self, request: web.Request) -> web.Response:
        self._add(_script.validate_json(await request.read()))
        return web.json_response({})

    async def _take_release(self, request: web.Request) -> web.Response:
        self.release()
        return web.json_response({})

    async def _tell_requests(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "total": self.counts.total(),
                "methods": dict(self.counts),
                "hanging": self.hanging,
                "dropped": self.dropped,
                "connections": len(self.connections),
            }
        )


def read_record(path: Path) -> list[RecordedRequest]:
    """The requests in a record file, in the order of arrival; a line still being written is left out."""
    *lines, _ = path.read_bytes().split(b"\n")
    entries = [cast("JsonObject", json.loads(line)) for line in lines]
    return [
        _recorded(
            cast("JsonObject", entry["request"]),
            cast("dict[str, str]", entry["headers"]),
            cast("float", entry["monotonic"]),
            cast("float", entry["at"]),
        )
        for entry in entries
    ]


def _recorded(document: JsonObject, headers: dict[str, str], monotonic: float, at: float) -> RecordedRequest:
    params = cast("JsonObject", document.get("params") or {})
    return RecordedRequest(str(document["method"]), params, document.get("id"), headers, monotonic, at)


def _task_name(document: JsonObject) -> str:
    params = document.get("params")
    task = params.get("task") if isinstance(params, dict) else None
    name = task.get("name") if isinstance(task, dict) else None
    return name if isinstance(name, str) else ""


async def _serve(port: int, record: Path | None, keepalive_seconds: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AcpServer(port, record=record, keepalive_seconds=keepalive_seconds) as server:
        # The caller reads this line to know the port and that it can send.
        os.write(1, f"{server.url}\n".encode())
        await stop.wait()


def main() -> None:
    """Serves until SIGTERM; prints its URL when it is up."""
    parser = argparse.ArgumentParser(description="A scriptable ACP agent")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--keepalive-seconds", type=float, default=75)
    given = parser.parse_args()
    asyncio.run(_serve(given.port, given.record, given.keepalive_seconds))


if __name__ == "__main__":
    main()
