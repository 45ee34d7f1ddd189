"""tracker.*: how far an agent has read a task's events."""

from __future__ import annotations

from agentex import BadRequestError, NotFoundError

from calls import TEXT, UNKNOWN_ID, has, raises


async def check_made_with_the_task(api):
    agent = await api.agent()
    task = await api.task(agent)
    [made] = await api.tracker.list(task_id=task.id, agent_id=agent.id)
    has(made, agent_id=agent.id, task_id=task.id, last_processed_event_id=None)
    assert made.created_at.tzinfo is not None
    assert await api.tracker.retrieve(made.id) == made


async def check_update(api):
    agent = await api.agent()
    task = await api.task(agent)
    event = (
        await api.agents.send_event(agent_id=agent.id, params={"task_id": task.id, "content": TEXT})
    ).result
    [made] = await api.tracker.list(task_id=task.id)
    changed = await api.tracker.update(
        made.id, last_processed_event_id=event.id, status="busy", status_reason="reading"
    )
    has(changed, id=made.id, last_processed_event_id=event.id, status="busy", status_reason="reading")
    # What is left out stays.
    has(await api.tracker.update(made.id, status="idle"), last_processed_event_id=event.id, status="idle")


async def check_list(api):
    agent = await api.agent()
    tasks = [await api.task(agent) for _ in range(3)]
    order = {"order_by": "created_at", "order_direction": "asc"}
    listed = await api.tracker.list(agent_id=agent.id, **order)
    assert [one.task_id for one in listed] == [one.id for one in tasks]
    assert await api.tracker.list(agent_id=agent.id, limit=2, page_number=2, **order) == listed[2:]


async def check_bad_ones(api):
    agent = await api.agent()
    task = await api.task(agent)
    [made] = await api.tracker.list(task_id=task.id)
    await raises(NotFoundError, api.tracker.retrieve(UNKNOWN_ID))
    await raises(NotFoundError, api.tracker.update(UNKNOWN_ID, status="x"))
    await raises(BadRequestError, api.tracker.update(made.id, last_processed_event_id=UNKNOWN_ID))
