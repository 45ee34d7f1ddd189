"""An async agent: greets within task/create, echoes each event, and closes its task when it was asked to."""

from __future__ import annotations

from agentex.lib import adk
from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.lib.types.fastacp import AsyncACPConfig
from agentex.protocol.acp import CancelTaskParams, CreateTaskParams, InterruptTaskParams, SendEventParams
from agentex.types import TextContent

acp = FastACP.create(acp_type="async", config=AsyncACPConfig(type="base"))


async def say(task_id: str, text: str) -> None:
    await adk.messages.create(task_id=task_id, content=TextContent(author="agent", content=text))


@acp.on_task_create
async def greet(params: CreateTaskParams) -> None:
    await say(params.task.id, f"Hello from {params.agent.name}")


@acp.on_task_event_send
async def echo(params: SendEventParams) -> None:
    await adk.messages.create(task_id=params.task.id, content=params.event.content)
    await say(params.task.id, f"You said: {params.event.content.content}")
    if (params.task.params or {}).get("complete"):
        await adk.tasks.complete(task_id=params.task.id, reason="answered")


@acp.on_task_cancel
async def stop(params: CancelTaskParams) -> None:
    await adk.tasks.update(task_id=params.task.id, task_metadata={"told": "cancel"})


@acp.on_task_interrupt
async def wait(params: InterruptTaskParams) -> None:
    await adk.tasks.update(task_id=params.task.id, task_metadata={"told": "interrupt"})
