"""An async agent that is a LangGraph graph, with its checkpoints at the server."""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

from agentex.lib import adk
from agentex.lib.adk import create_checkpointer
from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.lib.types.fastacp import AsyncACPConfig
from agentex.protocol.acp import CreateTaskParams, SendEventParams
from agentex.types import TextContent
from langgraph.graph import END, START, StateGraph

acp = FastACP.create(acp_type="async", config=AsyncACPConfig(type="base"))


class Talk(TypedDict):
    """The graph's state: all that was said, and how often something was."""

    said: Annotated[list[str], operator.add]
    turns: int
    answer: str


def count(talk: Talk) -> dict[str, object]:
    return {"turns": talk.get("turns", 0) + 1}


def answer(talk: Talk) -> dict[str, object]:
    return {"answer": f"Turn {talk['turns']}: {', '.join(talk['said'])}"}


builder = StateGraph(Talk)
builder.add_node("count", count)
builder.add_node("answer", answer)
builder.add_edge(START, "count")
builder.add_edge("count", "answer")
builder.add_edge("answer", END)


@acp.on_task_create
async def begin(params: CreateTaskParams) -> None:
    return None


@acp.on_task_event_send
async def take_turn(params: SendEventParams) -> None:
    graph = builder.compile(checkpointer=await create_checkpointer())
    config = {"configurable": {"thread_id": params.task.id}}
    result = await graph.ainvoke({"said": [params.event.content.content]}, config=config)
    await adk.messages.create(
        task_id=params.task.id, content=TextContent(author="agent", content=result["answer"])
    )
    if (params.task.params or {}).get("complete"):
        await adk.tasks.complete(task_id=params.task.id)
