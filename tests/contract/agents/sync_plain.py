"""A sync agent that answers with a text and a table."""

from __future__ import annotations

from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.protocol.acp import SendMessageParams
from agentex.types import DataContent, TextContent

acp = FastACP.create(acp_type="sync")


@acp.on_message_send
async def answer(params: SendMessageParams) -> list[TextContent | DataContent]:
    said = params.content.content
    return [
        TextContent(author="agent", content=f"You said: {said}", format="markdown"),
        DataContent(author="agent", data={"letters": len(said), "task": params.task.id}),
    ]
