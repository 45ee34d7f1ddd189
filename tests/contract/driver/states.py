"""states.*: an agent's memory of a task."""

from __future__ import annotations

from agentex import BadRequestError, NotFoundError

from calls import UNKNOWN_ID, has, raises

STATE = {"turns": 1, "history": [{"role": "user", "content": "hi"}], "none": None}


async def check_create_and_retrieve(api):
    agent = await api.agent()
    task = await api.task(agent)
    made = await api.states.create(agent_id=agent.id, task_id=task.id, state=STATE)
    has(made, agent_id=agent.id, task_id=task.id, state=STATE)
    assert made.created_at.tzinfo is not None
    assert await api.states.retrieve(made.id) == made


async def check_list(api):
    agent = await api.agent()
    tasks = [await api.task(agent) for _ in range(3)]
    made = [await api.states.create(agent_id=agent.id, task_id=one.id, state=STATE) for one in tasks]
    assert await api.states.list(task_id=tasks[1].id, agent_id=agent.id) == [made[1]]
    of_agent = await api.states.list(agent_id=agent.id, order_by="created_at", order_direction="asc")
    assert of_agent == made
    page = await api.states.list(
        agent_id=agent.id, order_by="created_at", order_direction="asc", limit=2, page_number=2
    )
    assert page == made[2:]


async def check_update(api):
    agent = await api.agent()
    task = await api.task(agent)
    made = await api.states.create(agent_id=agent.id, task_id=task.id, state=STATE)
    changed = await api.states.update(made.id, state={"turns": 2})
    has(changed, id=made.id, agent_id=agent.id, task_id=task.id, state={"turns": 2})
    assert (await api.states.retrieve(made.id)).state == {"turns": 2}


async def check_delete(api):
    agent = await api.agent()
    task = await api.task(agent)
    made = await api.states.create(agent_id=agent.id, task_id=task.id, state=STATE)
    has(await api.states.delete(made.id), id=made.id, state=STATE)
    await raises(NotFoundError, api.states.retrieve(made.id))
    assert await api.states.list(task_id=task.id) == []


async def check_one_a_task_and_agent(api):
    agent = await api.agent()
    task = await api.task(agent)
    await api.states.create(agent_id=agent.id, task_id=task.id, state=STATE)
    again = api.states.create(agent_id=agent.id, task_id=task.id, state=STATE)
    await raises(BadRequestError, again)


async def check_unknown(api):
    await raises(NotFoundError, api.states.retrieve(UNKNOWN_ID))
    await raises(NotFoundError, api.states.update(UNKNOWN_ID, state={}))
    await raises(NotFoundError, api.states.delete(UNKNOWN_ID))
