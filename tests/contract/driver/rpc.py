"""agents.rpc and its typed forms: tasks, events, messages, whole and in a stream."""

from __future__ import annotations

from agentex.types import (
    AgentRpcResponse,
    Event,
    Task,
    TaskMessage,
)
from agentex.types.agent_rpc_response import (
    CancelTaskResponse,
    CreateTaskResponse,
    SendEventResponse,
    SendMessageResponse,
)
from pydantic import ValidationError

from calls import TEXT, UNKNOWN_ID, WHOLE_TEXT, each, fresh, has, plain, raises

# What the scripted agent says to every message.
HELLO = {
    "type": "text",
    "author": "agent",
    "style": "static",
    "format": "plain",
    "content": "Hello",
    "attachments": None,
}


async def check_create_task(api):
    agent = await api.agent()
    params = {"name": fresh("task"), "params": {"depth": 2}, "task_metadata": {"ticket": "T-1"}}
    answer = await api.agents.create_task(agent_id=agent.id, params=params, id="a", jsonrpc="2.0")
    assert isinstance(answer, CreateTaskResponse)
    assert (answer.id, answer.jsonrpc, answer.error) == ("a", "2.0", None)
    has(answer.result, **params, status="RUNNING")
    # By name it is got or created; params are those of the last call, metadata those of the first.
    again = {"name": params["name"], "params": {"depth": 3}, "task_metadata": {"ticket": "T-2"}}
    same = await api.agents.create_task(agent_name=agent.name, params=again, id=7)
    assert same.id == 7
    has(same.result, id=answer.result.id, params={"depth": 3}, task_metadata={"ticket": "T-1"})


async def check_send_event(api):
    agent = await api.agent()
    task = await api.task(agent)
    answer = await api.agents.send_event(
        agent_id=agent.id, params={"task_id": task.id, "content": TEXT}, id=1
    )
    assert isinstance(answer, SendEventResponse)
    assert (answer.id, answer.error) == (1, None)
    has(answer.result, task_id=task.id, agent_id=agent.id, content=WHOLE_TEXT)
    by_name = await api.agents.send_event(
        agent_name=agent.name, params={"task_name": task.name, "content": TEXT}
    )
    assert by_name.result.task_id == task.id
    assert by_name.result.sequence_id > answer.result.sequence_id


async def check_cancel_task(api):
    agent = await api.agent()
    task, named = await api.task(agent), await api.task(agent)
    answer = await api.agents.cancel_task(agent_id=agent.id, params={"task_id": task.id}, id=2)
    assert isinstance(answer, CancelTaskResponse)
    has(answer.result, id=task.id, status="CANCELED")
    by_name = await api.agents.cancel_task(agent_name=agent.name, params={"task_name": named.name})
    has(by_name.result, id=named.id, status="CANCELED")
    assert (await api.tasks.retrieve(task.id)).status == "CANCELED"


async def check_interrupt(api):
    agent = await api.agent()
    task = await api.task(agent)
    answer = await api.agents.rpc(agent.id, method="task/interrupt", params={"task_id": task.id}, id=3)
    assert isinstance(answer, AgentRpcResponse)
    assert (answer.id, answer.error) == (3, None)
    assert (await api.tasks.retrieve(task.id)).status == "INTERRUPTED"
    # The next event goes on with it.
    await api.agents.send_event(agent_id=agent.id, params={"task_id": task.id, "content": TEXT})
    assert (await api.tasks.retrieve(task.id)).status == "RUNNING"


async def check_send_message(api):
    agent = await api.agent("sync")
    answer = await api.agents.send_message(agent_id=agent.id, params={"content": TEXT}, id="m")
    assert isinstance(answer, SendMessageResponse)
    assert (answer.id, answer.jsonrpc, answer.error) == ("m", "2.0", None)
    [message] = answer.result
    assert isinstance(message, TaskMessage)
    has(message, content=HELLO, streaming_status="DONE")
    # It made a task, and kept both sides of the talk.
    order = {"order_by": "created_at", "order_direction": "asc"}
    said = await api.messages.list(task_id=message.task_id, **order)
    assert [plain(one.content) for one in said] == [WHOLE_TEXT, HELLO]
    assert said[1] == message


async def check_send_message_goes_on(api):
    agent = await api.agent("sync")
    task = await api.task(agent)
    for params in ({"task_id": task.id}, {"task_name": task.name}):
        answer = await api.agents.send_message(agent_name=agent.name, params={"content": TEXT, **params})
        assert [one.task_id for one in answer.result] == [task.id]
    assert len(await api.messages.list(task_id=task.id)) == 4


async def check_send_message_with_task_params(api):
    agent = await api.agent("sync")
    params = {"content": TEXT, "task_name": fresh("task"), "task_params": {"depth": 1}}
    [message] = (await api.agents.send_message(agent_id=agent.id, params=params)).result
    has(await api.tasks.retrieve(message.task_id), name=params["task_name"], params={"depth": 1})


async def check_send_message_stream(api):
    agent = await api.agent("sync")
    for called in ({"agent_id": agent.id}, {"agent_name": agent.name}):
        stream = await api.agents.send_message_stream(**called, params={"content": TEXT}, id="s")
        updates = [update async for update in each(stream)]
        assert {update.id for update in updates} == {"s"}
        assert {update.error for update in updates} == {None}
        results = [update.result for update in updates]
        full = [result for result in results if result.type == "full"]
        assert [plain(result.content) for result in full] == [HELLO]
        parent = full[0].parent_task_message
        assert plain((await api.messages.retrieve(parent.id)).content) == HELLO


async def check_rpc(api):
    agent = await api.agent()
    created = await api.agents.rpc(agent.id, method="task/create", params={"name": fresh("t")}, id=1)
    assert isinstance(created.result, Task)
    sent = await api.agents.rpc_by_name(
        agent.name, method="event/send", params={"task_id": created.result.id, "content": TEXT}, id=2
    )
    assert isinstance(sent.result, Event)
    assert (sent.id, sent.result.task_id) == (2, created.result.id)


async def check_errors_are_answers(api):
    agent, sync = await api.agent(), await api.agent("sync")
    unsupported = await api.agents.rpc(agent.id, method="message/send", params={"content": TEXT}, id=9)
    assert (unsupported.id, unsupported.result) == (9, None)
    assert unsupported.error["code"] == -32603
    assert "Unsupported method" in unsupported.error["message"]
    of_sync = await api.agents.rpc(sync.id, method="event/send", params={"task_id": UNKNOWN_ID}, id=9)
    assert of_sync.error["code"] == -32603
    both = {"task_id": UNKNOWN_ID, "task_name": "x", "content": TEXT}
    invalid = await api.agents.rpc(agent.id, method="event/send", params=both, id="v")
    assert (invalid.id, invalid.error["code"]) == ("v", -32602)
    # The typed forms have no place for an error: their model refuses the answer.
    await raises(ValidationError, api.agents.send_event(agent_id=agent.id, params=both))
