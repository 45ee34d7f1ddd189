"""events.*: what was sent to an agent, in order."""

from __future__ import annotations

from agentex import NotFoundError, UnprocessableEntityError

from calls import TEXT, UNKNOWN_ID, WHOLE_TEXT, has, raises


async def check_retrieve_and_list(api):
    agent = await api.agent()
    task = await api.task(agent)
    params = {"task_id": task.id, "content": TEXT}
    sent = [(await api.agents.send_event(agent_id=agent.id, params=params)).result for _ in range(4)]
    has(sent[0], task_id=task.id, agent_id=agent.id, content=WHOLE_TEXT)
    assert await api.events.retrieve(sent[0].id) == sent[0]
    of_task = {"task_id": task.id, "agent_id": agent.id}
    listed = await api.events.list(**of_task)
    assert listed == sorted(sent, key=lambda event: event.sequence_id) == sent
    rest = await api.events.list(**of_task, last_processed_event_id=sent[1].id)
    assert rest == sent[2:]
    assert await api.events.list(**of_task, last_processed_event_id=sent[0].id, limit=1) == [sent[1]]


async def check_bad_ones(api):
    agent = await api.agent()
    task = await api.task(agent)
    await raises(NotFoundError, api.events.retrieve(UNKNOWN_ID))
    await raises(NotFoundError, api.events.list(task_id=UNKNOWN_ID, agent_id=agent.id))
    too_many = api.events.list(task_id=task.id, agent_id=agent.id, limit=1001)
    await raises(UnprocessableEntityError, too_many)
