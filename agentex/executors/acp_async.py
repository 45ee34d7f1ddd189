"""Async agents: task/create, then event/send, which the agent acknowledges before it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from agentex.acp.client import AcpClient
from agentex.acp.messages import AcpCall, AcpMethod
from agentex.database import JsonObject
from agentex.errors import AgentCallFailed
from agentex.executors.base import Answer, Delivery, Lane
from agentex.settings import Settings


class AcpAsync:
    """Delivers an event under ids of its own, so that the agent can dedupe a repeat."""

    lane: ClassVar[Lane] = Lane.DELIVER
    opens_task: ClassVar[bool] = True
    repeats_agent_error: ClassVar[bool] = True

    def __init__(self, acp: AcpClient, settings: Settings) -> None:
        self._acp = acp
        self._task_seconds = settings.task_create_timeout_seconds
        self._event_seconds = settings.event_send_timeout_seconds

    async def open_task(self, delivery: Delivery) -> None:
        """task/create; its answer comes after the agent's handler ended (wire.md §0.2)."""
        params: JsonObject = {
            "agent": delivery.agent,
            "task": delivery.task,
            "params": delivery.task["params"],
        }
        key = f"task:{delivery.task['id']}"
        await self._call(delivery, AcpMethod.TASK_CREATE, params, key)

    async def send(self, delivery: Delivery, begun: Callable[[], None]) -> Answer:
        """event/send; nothing is waited for but the acknowledgement."""
        if delivery.event is None:
            raise ValueError(f"run {delivery.run_id} has no event to send")
        params: JsonObject = {
            "agent": delivery.agent,
            "task": delivery.task,
            "event": delivery.event,
            "request": None,
        }
        key = f"event:{delivery.event['id']}"
        try:
            await self._call(delivery, AcpMethod.EVENT_SEND, params, key)
        except AgentCallFailed as failure:
            return Answer(failure=failure)
        return Answer()

    async def cancel(self, delivery: Delivery) -> None:
        """task/cancel."""
        params: JsonObject = {"agent": delivery.agent, "task": delivery.task}
        key = f"cancel:{delivery.task['id']}"
        await self._call(delivery, AcpMethod.TASK_CANCEL, params, key)

    async def _call(self, delivery: Delivery, method: AcpMethod, params: JsonObject, key: str) -> None:
        seconds = self._task_seconds if method is AcpMethod.TASK_CREATE else self._event_seconds
        await self._acp.call(
            AcpCall(delivery.acp_url, method, params, key, key, seconds, sealed_key=delivery.sealed_key)
        )
