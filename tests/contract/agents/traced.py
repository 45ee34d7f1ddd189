"""An async agent that traces its turns: a span for the turn, one inside it for the step."""

from __future__ import annotations

from agentex.lib import adk
from agentex.lib.core.tracing.tracing_processor_manager import add_tracing_processor_config
from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.lib.types.fastacp import AsyncACPConfig
from agentex.lib.types.tracing import AgentexTracingProcessorConfig
from agentex.protocol.acp import CreateTaskParams, SendEventParams
from agentex.types import TextContent

add_tracing_processor_config(AgentexTracingProcessorConfig())
acp = FastACP.create(acp_type="async", config=AsyncACPConfig(type="base"))


@acp.on_task_create
async def begin(params: CreateTaskParams) -> None:
    return None


@acp.on_task_event_send
async def take_turn(params: SendEventParams) -> None:
    task_id, said = params.task.id, params.event.content.content
    async with adk.tracing.span(
        trace_id=task_id, task_id=task_id, name="turn", input={"said": said}, data={"kind": "turn"}
    ) as turn:
        async with adk.tracing.span(
            trace_id=task_id, task_id=task_id, name="count", parent_id=turn.id
        ) as step:
            step.output = {"letters": len(said)}
        turn.output = {"answer": "counted"}
        await adk.messages.create(
            task_id=task_id, content=TextContent(author="agent", content=f"{len(said)} letters")
        )
    if (params.task.params or {}).get("complete"):
        await adk.tasks.complete(task_id=task_id)
