"""The workflow of a Temporal agent: one for each task, open until it has been asked to end."""

from __future__ import annotations

from agentex.lib import adk
from agentex.lib.core.temporal.types.workflow import SignalName
from agentex.lib.core.temporal.workflows.workflow import BaseWorkflow
from agentex.lib.environment_variables import EnvironmentVariables
from agentex.protocol.acp import CreateTaskParams, InterruptTaskParams, SendEventParams
from agentex.types import TextContent
from temporalio import workflow

variables = EnvironmentVariables.refresh()


@workflow.defn(name=variables.WORKFLOW_NAME)
class Conversation(BaseWorkflow):
    """Echoes; tells its turns to whoever queries it."""

    def __init__(self) -> None:
        super().__init__(display_name=variables.AGENT_NAME)
        self._turns: list[str] = []
        self._interrupts = 0
        self._ended = False

    @workflow.run
    async def on_task_create(self, params: CreateTaskParams) -> str:
        await self._say(params.task.id, f"Hello from {params.agent.name}")
        await self.run_until_complete(params, is_complete=lambda: self._ended)
        await adk.tasks.complete(task_id=params.task.id, reason="the workflow has ended")
        return "ended"

    @workflow.signal(name=SignalName.RECEIVE_EVENT)
    async def on_task_event_send(self, params: SendEventParams) -> None:
        self._turns.append(params.event.content.content)
        await adk.messages.create(task_id=params.task.id, content=params.event.content)
        await self._say(params.task.id, f"You said: {self._turns[-1]}")
        self._ended = bool((params.task.params or {}).get("complete"))

    @workflow.signal(name=SignalName.INTERRUPT_TURN)
    async def on_interrupt(self, params: InterruptTaskParams) -> None:
        self._interrupts += 1

    @workflow.query(name="turns")
    def turns(self) -> dict[str, object]:
        return {"turns": self._turns, "interrupts": self._interrupts}

    async def _say(self, task_id: str, text: str) -> None:
        await adk.messages.create(task_id=task_id, content=TextContent(author="agent", content=text))
