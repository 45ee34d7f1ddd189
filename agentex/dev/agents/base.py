"""What the demo agents share: an ACP service (JSON-RPC 2.0 over HTTP) that registers with the server."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from aiohttp import web

JSON = dict[str, Any]
logger = logging.getLogger("agentex.dev.agents")

METHOD_NOT_FOUND = -32601
INVALID_REQUEST = -32600
# The server may be minutes away from being up; a registration that waits longer than this between tries
# would keep a person waiting for the demo.
_REGISTER_EVERY_SECONDS = 0.25


@dataclass(frozen=True)
class Call:
    """One JSON-RPC request, with what a method needs to answer it."""

    request: web.Request
    id: str | int | None
    params: JSON
    agent: DemoAgent

    def result(self, result: object) -> JSON:
        """The answer's envelope, with the request's id."""
        return {"jsonrpc": "2.0", "result": result, "error": None, "id": self.id}

    def error(self, code: int, message: str) -> JSON:
        """The envelope of a failure."""
        return {"jsonrpc": "2.0", "result": None, "error": {"code": code, "message": message}, "id": self.id}


Method = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Options:
    """The command line: where to listen, whom to register with, under which name."""

    host: str
    port: int
    server: str
    name: str


class DemoAgent:
    """A service with a table of ACP methods, its connection to the server, and its work in the background."""

    def __init__(self, options: Options, acp_type: str, description: str, methods: dict[str, Method]) -> None:
        self.options = options
        self._acp_type = acp_type
        self._description = description
        self._methods = methods
        self._agent_id: str | None = None
        self._session: aiohttp.ClientSession | None = None
        self._background: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """POST /api (ACP) and GET /healthz; registers once it listens."""
        app = web.Application()
        app.add_routes([web.post("/api", self._serve_call), web.get("/healthz", self._serve_health)])
        app.cleanup_ctx.append(self._run)
        return app

    def in_background(self, work: Awaitable[None]) -> None:
        """Do it after the answer; ended with the service."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    async def post(self, path: str, body: JSON) -> JSON:
        """POST to the server. Raises aiohttp.ClientError when it does not answer with success."""
        if self._session is None:
            raise RuntimeError("the agent is not running")
        async with self._session.post(f"{self.options.server}{path}", json=body) as answer:
            answer.raise_for_status()
            return cast("JSON", await answer.json())

    async def _run(self, _app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            self._session = session
            self.in_background(self._register())
            yield
            for task in list(self._background):
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)

    async def _register(self) -> None:
        body = {
            "name": self.options.name,
            "description": self._description,
            "acp_url": f"http://{self.options.host}:{self.options.port}",
            "acp_type": self._acp_type,
            "principal_context": None,
            "registration_metadata": None,
        }
        while self._agent_id is None:
            try:
                self._agent_id = str((await self.post("/agents/register", body))["id"])
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.debug("not registered yet", extra={"error": str(error)})
                await asyncio.sleep(_REGISTER_EVERY_SECONDS)

    async def _serve_health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy", "agent_id": self._agent_id})

    async def _serve_call(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            call = Call(request, None, {}, self)
            return web.json_response(call.error(INVALID_REQUEST, "the body is not a JSON-RPC request"))
        fields = cast("JSON", body)
        call = Call(request, fields.get("id"), fields.get("params") or {}, self)
        method = self._methods.get(str(fields.get("method")))
        if method is None:
            return web.json_response(call.error(METHOD_NOT_FOUND, f"unknown method {fields.get('method')!r}"))
        return await method(call)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("work in the background failed", exc_info=error)


def read_options(arguments: list[str] | None = None) -> Options:
    """`--port N --server URL --name NAME [--host HOST]`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", required=True, help="the agentex server, e.g. http://127.0.0.1:5003")
    parser.add_argument("--name", required=True)
    return Options(**vars(parser.parse_args(arguments)))


def serve(agent: DemoAgent) -> None:
    """Serve until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    options = agent.options
    web.run_app(agent.application(), host=options.host, port=options.port, print=None, shutdown_timeout=2)
