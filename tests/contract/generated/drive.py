"""Drives a client that openapi-python-client made of openapi.yaml; runs where that is installed.

    python drive.py http://127.0.0.1:5003          exits with 0 when all is as it should be

The generated package is `generated`, next to the working directory's files.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TypeVar

from generated import Client
from generated.api.agents import get_agent_by_name, list_agents, register_agent
from generated.api.messages import create_message, list_messages
from generated.api.rpc import call_agent
from generated.api.runs import list_runs
from generated.api.schedules import (
    create_schedule,
    get_schedule,
    list_schedules,
    pause_schedule,
    trigger_schedule,
    update_schedule,
)
from generated.api.tasks import complete_task, get_task
from generated.models import (
    AcpType,
    AgentRead,
    AgentRegister,
    AgentRegistered,
    InitialInput,
    MessageCreate,
    MessageRead,
    Problem,
    RpcRequest,
    RpcResponse,
    RunPage,
    ScheduleCreate,
    ScheduleList,
    ScheduleRead,
    ScheduleState,
    ScheduleTriggered,
    ScheduleUpdate,
    TaskRead,
    TaskReadWithAgents,
    TaskStatus,
    TextContent,
    ToolRequestContent,
)

T = TypeVar("T")
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def kept(value: object, kind: type[T]) -> T:
    """The answer, which has to be of the type that the specification promises for its status."""
    assert isinstance(value, kind), value
    return value


def main(url: str) -> None:
    """A schedule's life, a task with messages of several kinds, and typed errors."""
    client = Client(base_url=url, raise_on_unexpected_status=True)
    register = AgentRegister(
        name="generated-python", description="", acp_url="http://127.0.0.1:9", acp_type=AcpType.SYNC
    )
    agent = kept(register_agent.sync(client=client, body=register), AgentRegistered)
    assert kept(get_agent_by_name.sync("generated-python", client=client), AgentRead).id == agent.id
    assert [listed.id for listed in kept(list_agents.sync(client=client), list)] == [agent.id]
    schedules(client, str(agent.id))
    messages(client, str(agent.id))


def schedules(client: Client, agent_id: str) -> None:
    """Create, read, change, pause, trigger; dates and enums are of their types."""
    body = ScheduleCreate(
        name="nightly", cron_expression="0 3 * * *", initial_input=InitialInput(content="go")
    )
    made = kept(create_schedule.sync(agent_id, client=client, body=body), ScheduleRead)
    assert made.created_at <= datetime.now(UTC)
    assert made.state is ScheduleState.ACTIVE
    twice = kept(create_schedule.sync(agent_id, client=client, body=body), Problem)
    assert (twice.status, twice.code) == (400, 400)
    schedule_id = str(made.id)
    change = ScheduleUpdate(description="d")
    changed = kept(update_schedule.sync(agent_id, schedule_id, client=client, body=change), ScheduleRead)
    assert changed.description == "d"
    paused = kept(pause_schedule.sync(agent_id, schedule_id, client=client), ScheduleRead)
    assert paused.state is ScheduleState.PAUSED
    triggered = kept(trigger_schedule.sync(agent_id, schedule_id, client=client), ScheduleTriggered)
    runs = kept(list_runs.sync(client=client, agent_id=agent_id), RunPage)
    assert [run.id for run in runs.runs] == [triggered.run_id]
    assert kept(list_schedules.sync(agent_id, client=client, include_live=True), ScheduleList).total == 1
    assert kept(get_schedule.sync(agent_id, UNKNOWN_ID, client=client), Problem).status == 404


def messages(client: Client, agent_id: str) -> None:
    """What is told apart by `type` comes back as what it was."""
    request = RpcRequest.from_dict({"method": "task/create", "params": {"name": "generated"}, "id": 7})
    answer = kept(call_agent.sync(agent_id, client=client, body=request), RpcResponse)
    assert answer.id == 7
    task_id = answer.result["id"]
    tool = {"type": "tool_request", "author": "agent", "tool_call_id": "1", "name": "t", "arguments": {}}
    for content in ({"type": "text", "author": "agent", "content": "hi"}, tool):
        body = MessageCreate.from_dict({"task_id": task_id, "content": content})
        kept(create_message.sync(client=client, body=body), MessageRead)
    listed = kept(list_messages.sync(client=client, task_id=task_id), list)
    assert [type(message.content) for message in reversed(listed)] == [TextContent, ToolRequestContent]
    assert kept(complete_task.sync(task_id, client=client), TaskRead).status is TaskStatus.COMPLETED
    task = kept(get_task.sync(task_id, client=client), TaskReadWithAgents)
    assert [str(agent.id) for agent in task.agents] == [agent_id]


main(sys.argv[1])
