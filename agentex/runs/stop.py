"""Stop a run whose agent already has its input: its task is closed as CANCELED and the agent is told."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlmodel import col, select

from agentex.agents.models import Agent
from agentex.agents.service import wire_agent
from agentex.errors import AgentCallFailed, BadRequest
from agentex.executors.base import Delivery
from agentex.executors.registry import executor_for
from agentex.resources import Resources
from agentex.runs.models import Run
from agentex.tasks.models import Task, TaskRead, TaskStatus
from agentex.tasks.service import close, wire_task

log = logging.getLogger(__name__)

REASON = "its run was canceled"


async def stop_at_agent(resources: Resources, run_id: UUID) -> None:
    """Close the run's task, which ends the run, then tell the agent; an agent that is away is only logged."""
    async with resources.db.begin() as session:
        run = (await session.exec(select(Run).where(col(Run.id) == run_id))).one()
        if run.task_id is None:
            return
        try:
            task = await close(session, resources.hooks, run.task_id, TaskStatus.CANCELED, REASON)
        except BadRequest:
            # Closed by somebody else in the meantime: its run has ended with it.
            return
        agent = (await session.exec(select(Agent).where(col(Agent.id) == run.agent_id))).one()
    await _tell(resources, run_id, agent, task)


async def _tell(resources: Resources, run_id: UUID, agent: Agent, task: Task | TaskRead) -> None:
    delivery = Delivery(run_id, agent.acp_url, wire_agent(agent), wire_task(task), content={})
    executor = executor_for(agent.acp_type, resources.acp, resources.settings)
    try:
        await executor.cancel(delivery)
    except AgentCallFailed as failure:
        log.warning(
            "an agent could not be told of a cancel",
            extra={"action": "run.cancel", "run_id": str(run_id), "code": failure.code},
        )
