"""What a process holds: opened once by `open_resources`, passed as an argument ever after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.client import AcpClient
from agentex.auth.authorize import AuthProvider
from agentex.auth.principal import Principal
from agentex.auth.providers.registry import open_provider
from agentex.database import Database, JsonObject
from agentex.notices import Notices
from agentex.settings import Settings
from agentex.temporal import Temporal

T = TypeVar("T")

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


@dataclass(frozen=True)
class RegisteredProcess:
    """What a process says of itself that registers for an agent."""

    agent_id: UUID
    acp_url: str
    acp_type: str
    metadata: JsonObject | None


@dataclass(frozen=True)
class GoneCreator:
    """A launch has found that there is nobody any more for whom a schedule's run was to go."""

    schedule_id: UUID
    principal: Principal


@dataclass
class Hooks:
    """How a lower slice reaches a higher one inside its transaction; filled by app.py and worker.py."""

    # tasks → messages, runs: a closed task ends what is being written in it, and its run.
    task_closed: list[Callable[[AsyncSession, ClosedTask], Awaitable[None]]] = field(default_factory=list)
    # tasks → rpc: nobody waits any more for what a task is at, whatever its agent has to say.
    task_given_up: list[Callable[[AsyncSession, UUID], Awaitable[None]]] = field(default_factory=list)
    # what an agent writes → runs: a task that speaks proves that its input arrived.
    task_alive: list[Callable[[AsyncSession, UUID], Awaitable[None]]] = field(default_factory=list)
    # The same within a statement that writes (`sign_of_life`): an UPDATE that looks at spoken (task_id).
    task_alive_sql: str | None = None
    # agents → schedules: a deleted agent's schedules are paused.
    agent_deleted: list[Callable[[AsyncSession, Principal, UUID], Awaitable[None]]] = field(
        default_factory=list
    )
    # agents → deployments: a process registers; true when it is not what the agent is, which stays as it is.
    process_registers: Callable[[AsyncSession, RegisteredProcess], Awaitable[bool]] | None = None
    # agents → deployments: a process has registered as the agent.
    agent_registered: list[Callable[[AsyncSession, RegisteredProcess], Awaitable[None]]] = field(
        default_factory=list
    )
    # those who make single runs → runs: a run that has just been committed is to be started.
    run_opened: Callable[[UUID], None] | None = None
    # runs → schedules: the creators of these are gone; in a transaction of its own: a launch has none open.
    creators_gone: Callable[[Resources, Sequence[GoneCreator]], Awaitable[None]] | None = None
    # runs → schedules: the definitions of a page of runs at once.
    definitions: (
        Callable[[AsyncSession, Sequence[DefinitionRef]], Awaitable[dict[DefinitionRef, Definition]]] | None
    ) = None

    def sign_of_life(self, write: str) -> str:
        """The statement `write`, whose rows also prove their one task alive; its RETURNING has task_id.

        One statement, so that a hot path is one round trip and nothing stands between the word and its proof.
        """
        if self.task_alive_sql is None:
            return write
        return f"""
            WITH written AS ({write}), spoken AS (SELECT task_id FROM written),
                alive AS ({self.task_alive_sql})
            SELECT * FROM written
        """  # noqa: S608 - both are constants of ours


@runtime_checkable
class Closable(Protocol):
    """Something, such as of a higher slice, that ends with the process."""

    async def aclose(self) -> None:
        """Stop it."""
        ...


@dataclass
class Resources:
    """One process's database, Temporal, agents' protocol, authorizer, notices and settings."""

    settings: Settings
    db: Database
    temporal: Temporal
    acp: AcpClient
    authz: AuthProvider
    notices: Notices
    hooks: Hooks = field(default_factory=Hooks)
    # The streams of this process, which only the slice of that name knows; filled by hooks.py.
    streams: Closable | None = None
    _background: set[asyncio.Task[Any]] = field(default_factory=set)

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let something go on after the answer; what is still open at the end is awaited by close."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

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
    notices = Notices(settings)
    provider = authz or open_provider(settings, db)
    resources = Resources(settings, db, temporal, AcpClient(settings), provider, notices)
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
        if isinstance(provider, Closable):
            await provider.aclose()
        await notices.close()
        await db.close()
