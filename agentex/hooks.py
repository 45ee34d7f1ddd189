"""Which function of a higher slice a lower one calls inside its transaction; the same in every process."""

from __future__ import annotations

from agentex.resources import Resources
from agentex.runs.finish import end_for_task, prove_alive
from agentex.runs.pages import RunStarter
from agentex.schedules.revisions import definitions
from agentex.schedules.service import pause_for_deleted_agent
from agentex.streams.hub import Hub


def fill_hooks(resources: Resources) -> None:
    """Connect the slices; called once by app.py and worker.py."""
    hooks = resources.hooks
    hooks.task_closed = [end_for_task]
    hooks.task_alive = [prove_alive]
    hooks.agent_deleted = [pause_for_deleted_agent]
    hooks.run_opened = RunStarter(resources).start_soon
    hooks.definitions = definitions
    if resources.streams is None:
        resources.streams = Hub(resources.settings, resources.db)
