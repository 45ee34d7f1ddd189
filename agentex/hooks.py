"""Which function of a higher slice a lower one calls inside its transaction; the same in every process."""

from __future__ import annotations

from agentex.agent_api_keys.service import remove_of_agent
from agentex.api_keys.members import disable_agent
from agentex.deployments.history import note_registration
from agentex.deployments.service import take_in
from agentex.messages.bulk import end_open_messages
from agentex.resources import Resources
from agentex.rpc.sends import tell_open_sends
from agentex.runs.finish import PROVE_ALIVE_SQL, end_for_task, prove_alive
from agentex.runs.pages import RunStarter
from agentex.schedules.gone import pause_for_gone_creators
from agentex.schedules.revisions import definitions
from agentex.schedules.service import pause_for_deleted_agent
from agentex.streams.hub import Hub


def fill_hooks(resources: Resources) -> None:
    """Connect the slices; called once by app.py and worker.py."""
    hooks = resources.hooks
    # Messages first: who writes one locks it, and then the run whose task it proves alive.
    hooks.task_closed = [end_open_messages, end_for_task]
    hooks.task_given_up = [tell_open_sends]
    hooks.task_alive = [prove_alive]
    hooks.task_alive_sql = PROVE_ALIVE_SQL
    hooks.agent_deleted = [pause_for_deleted_agent, remove_of_agent, disable_agent]
    hooks.process_registers = take_in
    hooks.agent_registered = [note_registration]
    hooks.run_opened = RunStarter(resources).start_soon
    hooks.definitions = definitions
    hooks.creators_gone = pause_for_gone_creators
    if resources.streams is None:
        resources.streams = Hub(resources.settings, resources.db)
