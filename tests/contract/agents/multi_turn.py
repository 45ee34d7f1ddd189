"""An async agent that remembers a task's turns in its state."""

from __future__ import annotations

from agentex.lib import adk
from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.lib.types.fastacp import AsyncACPConfig
from agentex.lib.utils.model_utils import BaseModel
from agentex.protocol.acp import CreateTaskParams, SendEventParams
from agentex.types import TextContent
from pydantic import Field

acp = FastACP.create(acp_type="async", config=AsyncACPConfig(type="base"))


class Memory(BaseModel):
    """What is kept from turn to turn."""

    turns: list[str] = Field(default_factory=list)


@acp.on_task_create
async def begin(params: CreateTaskParams) -> None:
    await adk.state.create(task_id=params.task.id, agent_id=params.agent.id, state=Memory())


@acp.on_task_event_send
async def take_turn(params: SendEventParams) -> None:
    state = await adk.state.get_by_task_and_agent(task_id=params.task.id, agent_id=params.agent.id)
    memory = Memory.model_validate(state.state)
    memory.turns.append(params.event.content.content)
    await adk.state.update(state_id=state.id, task_id=params.task.id, agent_id=params.agent.id, state=memory)
    answer = f"Turn {len(memory.turns)}: {', '.join(memory.turns)}"
    await adk.messages.create(task_id=params.task.id, content=TextContent(author="agent", content=answer))
    if (params.task.params or {}).get("complete"):
        await adk.tasks.complete(task_id=params.task.id)
