"""Sync agents: message/send, whose stream is the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from agentex.acp.accumulate import Accumulator
from agentex.acp.client import AcpClient
from agentex.acp.messages import AcpCall, AcpMethod
from agentex.database import JsonObject
from agentex.errors import AgentCallFailed
from agentex.executors.base import Answer, Delivery, Lane
from agentex.settings import Settings


class AcpSync:
    """Sends the input and reads the answer to its end; never a second time by itself."""

    lane: ClassVar[Lane] = Lane.ANSWER
    opens_task: ClassVar[bool] = False
    repeats_agent_error: ClassVar[bool] = False

    def __init__(self, acp: AcpClient, settings: Settings) -> None:
        self._acp = acp
        self._answer_seconds = settings.answer_timeout_seconds

    async def open_task(self, delivery: Delivery) -> None:
        """Nothing: a sync agent learns of the task with the message."""

    async def send(self, delivery: Delivery, begun: Callable[[], None]) -> Answer:
        """message/send; what came before a failure is kept as the output."""
        answer = Accumulator()
        try:
            async with self._acp.stream(self._call(delivery)) as updates:
                begun()
                async for update in updates:
                    answer.add(update)
            return Answer(output=_wire(answer, partial=False))
        except AgentCallFailed as failure:
            return Answer(output=_wire(answer, partial=True) or None, failure=failure)

    async def cancel(self, delivery: Delivery) -> None:
        """Nothing: dropping the connection is how a sync answer is given up."""

    def _call(self, delivery: Delivery) -> AcpCall:
        params: JsonObject = {
            "agent": delivery.agent,
            "task": delivery.task,
            "content": delivery.content,
            "stream": True,
        }
        key = f"message:{delivery.run_id}"
        return AcpCall(
            delivery.acp_url,
            AcpMethod.MESSAGE_SEND,
            params,
            key,
            key,
            self._answer_seconds,
            sealed_key=delivery.sealed_key,
        )


def _wire(answer: Accumulator, *, partial: bool) -> list[JsonObject]:
    contents = answer.partial_contents() if partial else answer.contents()
    return [content.model_dump(mode="json") for content in contents]
