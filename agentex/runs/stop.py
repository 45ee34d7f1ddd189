"""Stop a run whose agent already has its input: its task is closed as CANCELED and the agent is told."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import Agent
from agentex.agents.service import address, wire_agent
from agentex.database import rows
from agentex.errors import AgentCallFailed, BadRequest, SecretUnreadable
from agentex.executors.base import Delivery
from agentex.executors.registry import executor_for
from agentex.resources import Resources
from agentex.runs.models import Run
from agentex.tasks.models import Task, TaskRead, TaskStatus
from agentex.tasks.service import close, wire_task

log = logging.getLogger(__name__)

REASON = "its run was canceled"


async def stop_at_agent(resources: Resources, run_id: UUID) -> None:
    """Close the run's task, which ends the run, then tell the agent; an agent that is away is only logged.

    A run that has ended already keeps its end; its task is closed and its agent told all the same.
    """
    async with resources.db.begin() as session:
        run = (await session.exec(select(Run).where(col(Run.id) == run_id))).one()
        task = await _close_task(session, resources, run.task_id) if run.task_id else None
        # After the task, as everybody locks them. One that has not ended may get a task yet.
        await rows(
            session,
            "UPDATE runs SET to_stop_since = NULL WHERE id = :id AND finished_at IS NOT NULL",
            id=run_id,
        )
        agent = (await session.exec(select(Agent).where(col(Agent.id) == run.agent_id))).one()
    # Of one that was never deployed nobody has heard.
    if task is not None and agent.acp_url is not None:
        await _tell(resources, run_id, agent, task)


async def _close_task(session: AsyncSession, resources: Resources, task_id: UUID) -> Task | None:
    """None when somebody else has closed it in the meantime: its run has ended with it."""
    try:
        return await close(session, resources.hooks, task_id, TaskStatus.CANCELED, REASON)
    except BadRequest:
        return None


async def _tell(resources: Resources, run_id: UUID, agent: Agent, task: Task | TaskRead) -> None:
    delivery = Delivery(
        run_id,
        address(agent),
        wire_agent(agent),
        wire_task(task),
        content={},
        sealed_key=agent.sealed_key,
    )
    executor = executor_for(agent.acp_type, resources.acp, resources.settings)
    try:
        await executor.cancel(delivery)
    except (AgentCallFailed, SecretUnreadable) as failure:
        log.warning(
            "an agent could not be told of a cancel",
            extra={"action": "run.cancel", "run_id": str(run_id), "code": failure.code},
        )
