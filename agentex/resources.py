"""What a process holds: opened once by `open_resources`, passed as an argument ever after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.client import AcpClient
from agentex.auth.authorize import AuthProvider
from agentex.auth.principal import Principal
from agentex.auth.providers.registry import open_provider
from agentex.database import Database, JsonObject
from agentex.settings import Settings
from agentex.temporal import Temporal

# Calls to a Temporal that hangs; each has a limit of its own of 1 s.
BACKGROUND_SECONDS = 5.0


@dataclass(frozen=True)
class ClosedTask:
    """A task that has just reached a terminal status, in the transaction that closes it."""

    task_id: UUID
    status: str
    reason: str | None


@dataclass(frozen=True)
class DefinitionRef:
    """Which definition a run was opened with."""

    schedule_id: UUID
    version: int


@dataclass(frozen=True)
class Definition:
    """What a run needs to know of its schedule: the version it was opened with, and whether it is gone."""

    name: str
    input: JsonObject
    task_params: JsonObject | None
    task_metadata: JsonObject | None
    retry_window_seconds: float
    resend_unknown: bool
    finishes_on_task: bool
    deleted: bool


@dataclass
class Hooks:
    """How a lower slice reaches a higher one inside its transaction; filled by app.py and worker.py."""

    # tasks → runs: a closed task ends its run.
    task_closed: list[Callable[[AsyncSession, ClosedTask], Awaitable[None]]] = field(default_factory=list)
    # messages and events → runs: a task that speaks proves that its input arrived.
    task_alive: list[Callable[[AsyncSession, UUID], Awaitable[None]]] = field(default_factory=list)
    # agents → schedules: a deleted agent's schedules are paused.
    agent_deleted: list[Callable[[AsyncSession, Principal, UUID], Awaitable[None]]] = field(
        default_factory=list
    )
    # those who make single runs → runs: a run that has just been committed is to be started.
    run_opened: Callable[[UUID], None] | None = None
    # runs → schedules: the definitions of a page of runs at once.
    definitions: (
        Callable[[AsyncSession, Sequence[DefinitionRef]], Awaitable[dict[DefinitionRef, Definition]]] | None
    ) = None


class Closable(Protocol):
    """Something of a higher slice that ends with the process."""

    async def aclose(self) -> None:
        """Stop it."""
        ...


@dataclass
class Resources:
    """One process's database, Temporal, agents' protocol, authorizer and settings."""

    settings: Settings
    db: Database
    temporal: Temporal
    acp: AcpClient
    authz: AuthProvider
    hooks: Hooks = field(default_factory=Hooks)
    # The streams of this process, which only the slice of that name knows; filled by hooks.py.
    streams: Closable | None = None
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def in_background(self, work: Awaitable[None]) -> None:
        """Let something go on after the answer; what is still open at the end is awaited by close."""

        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def settle_background(self) -> None:
        """Wait for what goes on in the background, a few seconds at most: the sweep repairs what is left."""
        if self._background:
            _, open_still = await asyncio.wait(self._background, timeout=BACKGROUND_SECONDS)
            for task in open_still:
                task.cancel()


@asynccontextmanager
async def open_resources(
    settings: Settings, *, authz: AuthProvider | None = None
) -> AsyncGenerator[Resources]:
    """Open everything, probe Temporal while open, close everything. The one composition root."""
    db = Database(settings)
    temporal = await Temporal.open(settings)
    resources = Resources(settings, db, temporal, AcpClient(settings), authz or open_provider(settings))
    prober = asyncio.create_task(temporal.keep_probing())
    try:
        yield resources
    finally:
        prober.cancel()
        with suppress(asyncio.CancelledError):
            await prober
        if resources.streams is not None:
            await resources.streams.aclose()
        await resources.settle_background()
        await resources.acp.aclose()
        await db.close()
