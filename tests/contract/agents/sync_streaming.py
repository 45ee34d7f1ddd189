"""A sync agent that streams its answer word by word, and a tool call behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.protocol.acp import SendMessageParams
from agentex.types import TextContent, ToolRequestContent
from agentex.types.task_message_delta import TextDelta
from agentex.types.task_message_update import (
    StreamTaskMessageDelta,
    StreamTaskMessageDone,
    StreamTaskMessageFull,
    StreamTaskMessageStart,
    TaskMessageUpdate,
)

acp = FastACP.create(acp_type="sync")


@acp.on_message_send
async def answer(params: SendMessageParams) -> AsyncGenerator[TaskMessageUpdate, None]:
    empty = TextContent(author="agent", content="")
    yield StreamTaskMessageStart(type="start", index=0, content=empty)
    for word in ["You", "said:", *params.content.content.split()]:
        yield StreamTaskMessageDelta(
            type="delta", index=0, delta=TextDelta(type="text", text_delta=f"{word} ")
        )
    yield StreamTaskMessageDone(type="done", index=0)
    call = ToolRequestContent(author="agent", tool_call_id="c1", name="search", arguments={"q": "x"})
    yield StreamTaskMessageFull(type="full", index=1, content=call)
