"""The API process: one FastAPI app over the slices' routers, and the server it runs in."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from math import ceil
from types import FrameType
from typing import Any, cast

import uvicorn
import yaml
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from agentex.agent_api_keys.api import router as agent_api_keys_router
from agentex.agents.api import router as agents_router
from agentex.api_keys.api import members_router, whoami_router
from agentex.api_keys.api import router as api_keys_router
from agentex.audit.api import router as audit_router
from agentex.checkpoints.api import put_router
from agentex.checkpoints.api import router as checkpoints_router
from agentex.collector import keep_modules
from agentex.deployments.api import history_router
from agentex.deployments.api import router as deployments_router
from agentex.events.api import router as events_router
from agentex.forward.api import router as forward_router
from agentex.grants.api import router as grants_router
from agentex.hooks import fill_hooks
from agentex.messages.api import router as messages_router
from agentex.rates import Rates
from agentex.resources import Resources, open_resources
from agentex.rpc.api import router as rpc_router
from agentex.runs.api import router as runs_router
from agentex.schedules.api import router as schedules_router
from agentex.settings import Settings
from agentex.snapshots.api import restore_router
from agentex.snapshots.api import router as snapshots_router
from agentex.spans.api import router as spans_router
from agentex.states.api import router as states_router
from agentex.streams.api import router as streams_router
from agentex.streams.service import hub_of
from agentex.tasks.api import router as tasks_router
from agentex.telemetry.logs import configure_logs
from agentex.trackers.api import router as trackers_router
from agentex.web.audited import Audit
from agentex.web.bodies import body_limit, refuse_unstorable_json
from agentex.web.connections import Connections, GuardedProtocol
from agentex.web.edge import Edge
from agentex.web.guard import Guard
from agentex.web.health import router as health_router
from agentex.web.openapi import with_problems
from agentex.web.origins import with_origins
from agentex.web.problems import add_problem_handlers
from agentex.web.proxies import Proxies

log = logging.getLogger(__name__)

# Of the API, not of the package: agents' SDKs refuse to start below 0.1.0 (wire.md §0.3).
API_VERSION = "0.1.0"
EXIT_CANNOT_BIND = 1
EXIT_UNSAFE = 2


class Server(uvicorn.Server):
    """uvicorn's server; how long it waits for open requests hangs on the signal that stops it."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._settings: Settings = app.state.settings

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM awaits open answers, which are paid for; behind SIGINT a person waits."""
        seconds = self._settings.drain_seconds
        if sig == signal.SIGINT:
            seconds = self._settings.interrupt_drain_seconds
        self.config.timeout_graceful_shutdown = ceil(seconds)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, behind the end of all streams, which have none of their own."""
        resources: Resources | None = getattr(self._app.state, "resources", None)
        if resources is not None:
            hub_of(resources).refuse()
        await super().shutdown(sockets)


class Api(FastAPI):
    """FastAPI with the edge around all of it, its own error answers included."""

    def build_middleware_stack(self) -> ASGIApp:
        """As FastAPI's, inside the audit if there is one, guard and edge.

        Origins stand between guard and edge, for a page may read its refusal.
        """
        settings: Settings = self.state.settings
        limit = partial(body_limit, settings)
        routes = super().build_middleware_stack()
        audited = Audit(routes) if settings.audits else routes
        guarded: ASGIApp = Guard(audited, settings, self.state.rates, limit)
        return Edge(with_origins(guarded, settings.cors_origins), Proxies(settings.trusted_proxies))

    def openapi(self) -> dict[str, Any]:
        """As FastAPI's, with our errors."""
        if self.openapi_schema is None:
            self.openapi_schema = with_problems(super().openapi())
        return self.openapi_schema


def create_app(settings: Settings, *, resources: Resources | None = None) -> FastAPI:
    """The app; it opens its own resources unless it is given some, which stay the caller's to close."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_resources(settings) as opened:
            fill_hooks(opened)
            app.state.resources = opened
            yield

    app = Api(
        title="agentex",
        version=API_VERSION,
        summary="A durable run service for AI agents",
        lifespan=lifespan if resources is None else None,
        max_body_size=settings.max_body_bytes,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        dependencies=[Depends(refuse_unstorable_json)],
    )
    app.state.settings = settings
    app.state.rates = Rates.of(settings)
    if resources is not None:
        fill_hooks(resources)
        app.state.resources = resources
    add_problem_handlers(app)
    _add_routers(app, settings)
    return app


def openapi_yaml() -> str:
    """The API's document, always with the schedules' routes."""
    settings = Settings.model_validate({"ENABLE_AGENT_RUN_SCHEDULES": True})
    document = create_app(settings).openapi()
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first. Exits with 1 without a port.

    Exits with 2 when everybody could call it and nobody had to say who they are.
    """
    configure_logs(settings)
    if settings.exposure_problem is not None:
        sys.stderr.write(f"{settings.exposure_problem}\n")
        raise SystemExit(EXIT_UNSAFE)
    listening = _listen(settings)
    # uvicorn raises the signal that stopped it once more when it has ended: an orderly end, so exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_orderly)
    app = create_app(settings)
    keep_modules()
    Server(uvicorn_config(settings, app), app).run(sockets=[listening])


def uvicorn_config(settings: Settings, app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the app."""
    protocol = partial(GuardedProtocol, Connections(settings))
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", protocol),
        # There are none, and their connections would have no limits.
        ws="none",
        # The edge believes proxies that are named; uvicorn would believe 127.0.0.1, or FORWARDED_ALLOW_IPS.
        proxy_headers=False,
        # uvicorn's own logging set-up would replace ours.
        log_config=None,
        access_log=False,
        server_header=False,
    )


def _exit_orderly(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _listen(settings: Settings) -> socket.socket:
    """The listening socket, taken before anything is opened."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        # create_server repeats the address behind the reason.
        reason = str(error.strerror or error).partition(" (while")[0]
        sys.stderr.write(
            f"cannot listen on {settings.host}:{settings.port} (AGENTEX_HOST, AGENTEX_PORT): {reason}\n"
        )
        raise SystemExit(EXIT_CANNOT_BIND) from None


def _add_routers(app: FastAPI, settings: Settings) -> None:
    # streams before tasks: /tasks/name/{name:path} would take their paths.
    routers = (health_router, agents_router, rpc_router, streams_router, tasks_router, messages_router)
    for router in (*routers, events_router, states_router, runs_router):
        app.include_router(router)
    app.include_router(snapshots_router)
    app.include_router(restore_router, max_body_size=settings.max_restore_bytes)
    for router in (spans_router, trackers_router, checkpoints_router):
        app.include_router(router)
    app.include_router(put_router, max_body_size=settings.max_checkpoint_bytes)
    for router in (deployments_router, history_router, agent_api_keys_router, forward_router, audit_router):
        app.include_router(router)
    for router in (grants_router, api_keys_router, members_router, whoami_router):
        app.include_router(router)
    if settings.enable_agent_run_schedules:
        app.include_router(schedules_router)


def _operation_id(route: APIRoute) -> str:
    return route.name
