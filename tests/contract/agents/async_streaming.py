"""An async agent that writes its answer token by token; through Redis where there is one."""

from __future__ import annotations

from agentex.lib import adk
from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.lib.types.fastacp import AsyncACPConfig
from agentex.protocol.acp import CreateTaskParams, SendEventParams
from agentex.types import TextContent
from agentex.types.task_message_delta import TextDelta
from agentex.types.task_message_update import StreamTaskMessageDelta

acp = FastACP.create(acp_type="async", config=AsyncACPConfig(type="base"))


@acp.on_task_create
async def begin(params: CreateTaskParams) -> None:
    return None


@acp.on_task_event_send
async def stream(params: SendEventParams) -> None:
    await adk.messages.create(task_id=params.task.id, content=params.event.content)
    async with adk.streaming.streaming_task_message_context(
        task_id=params.task.id,
        initial_content=TextContent(author="agent", content=""),
        streaming_mode="per_token",
    ) as message:
        for word in ["You", "said:", *params.event.content.content.split()]:
            await message.stream_update(
                StreamTaskMessageDelta(
                    type="delta",
                    parent_task_message=message.task_message,
                    delta=TextDelta(type="text", text_delta=f"{word} "),
                )
            )
    if (params.task.params or {}).get("complete"):
        await adk.tasks.complete(task_id=params.task.id)
