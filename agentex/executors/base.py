"""Executors: how input gets to an agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol
from uuid import UUID

from agentex.database import JsonObject
from agentex.errors import AgentCallFailed


class Lane(StrEnum):
    """Which slots a run takes: short deliveries, or answers that are waited for."""

    DELIVER = "deliver"
    ANSWER = "answer"


@dataclass(frozen=True)
class Delivery:
    """All that one run sends; made of rows, so that each attempt sends the same.

    agent, task and event are wire objects (wire.md §1b); event is null for a sync agent.
    """

    run_id: UUID
    acp_url: str
    agent: JsonObject
    task: JsonObject
    content: JsonObject
    event: JsonObject | None = None
    # What the agent knows us by, see AcpCall.
    sealed_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Answer:
    """What came back: the contents (None where none are waited for), and the failure that cut them short."""

    output: list[JsonObject] | None = None
    failure: AgentCallFailed | None = None


class Executor(Protocol):
    """One way to get input to an agent."""

    lane: ClassVar[Lane]
    # Whether the agent is told of the task before it gets the input; idempotent at the agent.
    opens_task: ClassVar[bool]
    # Whether an agent's server error is tried again: only where it acknowledges before it works.
    repeats_agent_error: ClassVar[bool]

    async def open_task(self, delivery: Delivery) -> None:
        """Tell the agent of the task; raises AgentCallFailed."""
        ...

    async def send(self, delivery: Delivery, begun: Callable[[], None]) -> Answer:
        """Send the input once and wait for what the executor waits for.

        begun is called when the agent has certainly begun while its answer is still open.
        """
        ...

    async def cancel(self, delivery: Delivery) -> None:
        """Tell the agent that its work is not wanted any more; raises AgentCallFailed."""
        ...
