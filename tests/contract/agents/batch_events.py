"""An async agent that works off events in batches: one worker a task, with a cursor in its tracker."""

from __future__ import annotations

from agentex.lib import adk
from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.lib.types.fastacp import AsyncACPConfig
from agentex.protocol.acp import CreateTaskParams, SendEventParams
from agentex.types import TextContent

acp = FastACP.create(acp_type="async", config=AsyncACPConfig(type="base"))

# The tasks that are being worked on in this process.
busy: set[str] = set()


@acp.on_task_create
async def begin(params: CreateTaskParams) -> None:
    tracker = await adk.agent_task_tracker.get_by_task_and_agent(
        task_id=params.task.id, agent_id=params.agent.id
    )
    await adk.agent_task_tracker.update(tracker_id=tracker.id, status="ready", status_reason="begun")


@acp.on_task_event_send
async def work_off(params: SendEventParams) -> None:
    task_id, agent_id = params.task.id, params.agent.id
    if task_id in busy:
        # Whoever works on the task reads on until nothing is left.
        return
    busy.add(task_id)
    try:
        tracker = await adk.agent_task_tracker.get_by_task_and_agent(task_id=task_id, agent_id=agent_id)
        cursor = tracker.last_processed_event_id
        while events := await adk.events.list_events(
            task_id=task_id, agent_id=agent_id, last_processed_event_id=cursor, limit=10
        ):
            words = ", ".join(event.content.content for event in events)
            await adk.messages.create(
                task_id=task_id, content=TextContent(author="agent", content=f"Batch: {words}")
            )
            cursor = events[-1].id
            await adk.agent_task_tracker.update(
                tracker_id=tracker.id, last_processed_event_id=cursor, status="ready"
            )
    finally:
        busy.discard(task_id)
    if (params.task.params or {}).get("complete"):
        await adk.tasks.complete(task_id=task_id)
