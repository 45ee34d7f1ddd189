"""The worker of a Temporal agent: a process of its own beside the ACP server."""

from __future__ import annotations

import asyncio

from agentex.lib.core.temporal.activities import get_all_activities
from agentex.lib.core.temporal.workers.worker import AgentexWorker
from agentex.lib.environment_variables import EnvironmentVariables

from temporal_workflow import Conversation


async def main() -> None:
    worker = AgentexWorker(task_queue=EnvironmentVariables.refresh().WORKFLOW_TASK_QUEUE)
    await worker.run(activities=get_all_activities(), workflow=Conversation)


if __name__ == "__main__":
    asyncio.run(main())
