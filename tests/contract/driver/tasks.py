"""tasks.*: found, listed, changed, closed by each verb, deleted."""

from __future__ import annotations

import json

from agentex import BadRequestError, NotFoundError

from calls import UNKNOWN_ID, fresh, has, raises

PARAMS, METADATA = {"depth": 3, "of": ["a", None]}, {"ticket": "T-1"}


async def check_retrieve(api):
    agent = await api.agent()
    made = await api.task(agent, params=PARAMS, task_metadata=METADATA)
    got = await api.tasks.retrieve(made.id)
    has(
        got,
        id=made.id,
        name=made.name,
        status="RUNNING",
        params=PARAMS,
        task_metadata=METADATA,
        cleaned_at=None,
        created_at=made.created_at,
    )
    by_name = await api.tasks.retrieve_by_name(made.name, relationships=["agents"])
    assert [one.id for one in by_name.agents] == [agent.id]
    related = await api.tasks.retrieve(made.id, relationships=["agents"])
    assert related.to_dict() == by_name.to_dict()


async def check_list(api):
    agent = await api.agent()
    tasks = [await api.task(agent, params=PARAMS, task_metadata=METADATA) for _ in range(3)]
    await api.tasks.complete(tasks[0].id)
    listed = await api.tasks.list(agent_id=agent.id)
    assert [one.id for one in listed] == [one.id for one in reversed(tasks)]
    has(listed[0], name=tasks[2].name, status="RUNNING", task_metadata=METADATA)
    # The create call's params may hold secrets: they are read one task at a time.
    assert all(not hasattr(one, "params") for one in listed)
    done = await api.tasks.list(agent_name=agent.name, status="COMPLETED")
    assert [one.id for one in done] == [tasks[0].id]


async def check_list_order_and_pages(api):
    agent = await api.agent()
    tasks = [await api.task(agent) for _ in range(3)]
    order = {"order_by": "created_at", "order_direction": "asc"}
    page = await api.tasks.list(agent_id=agent.id, limit=2, page_number=2, **order)
    assert [one.id for one in page] == [tasks[2].id]
    related = await api.tasks.list(agent_id=agent.id, relationships=["agents"])
    assert [[one.id for one in task.agents] for task in related] == [[agent.id]] * 3


async def check_list_by_metadata(api):
    mark = fresh("mark")
    wanted = await api.task(task_metadata={"mark": mark, "deep": {"a": 1, "b": 2}})
    await api.task(task_metadata={"mark": fresh("mark"), "deep": {"a": 1}})
    contained = json.dumps({"mark": mark, "deep": {"a": 1}})
    listed = await api.tasks.list(task_metadata=contained)
    assert [one.id for one in listed] == [wanted.id]


async def check_update(api):
    made = await api.task(params={"keep": 1, "change": 1}, task_metadata={"old": True})
    changed = await api.tasks.update_by_id(made.id, task_metadata=METADATA, merge_params={"change": 2})
    has(changed, id=made.id, task_metadata=METADATA, params={"keep": 1, "change": 2})
    by_name = await api.tasks.update_by_name(made.name, merge_params={"more": []})
    has(by_name, id=made.id, task_metadata=METADATA, params={"keep": 1, "change": 2, "more": []})
    has(await api.tasks.retrieve(made.id), params={"keep": 1, "change": 2, "more": []})


async def check_cancel(api):
    await _closes(api, api.tasks.cancel, "CANCELED")


async def check_complete(api):
    await _closes(api, api.tasks.complete, "COMPLETED")


async def check_fail(api):
    await _closes(api, api.tasks.fail, "FAILED")


async def check_terminate(api):
    await _closes(api, api.tasks.terminate, "TERMINATED")


async def check_timeout(api):
    await _closes(api, api.tasks.timeout, "TIMED_OUT")


async def check_interrupt(api):
    made = await api.task()
    has(await api.tasks.interrupt(made.id, reason="wait"), status="INTERRUPTED", status_reason="wait")
    # It goes on from there, so an interrupted one can still be closed.
    has(await api.tasks.complete(made.id), status="COMPLETED")


async def check_delete(api):
    made = await api.task()
    has(await api.tasks.delete(made.id), id=made.id)
    await raises(NotFoundError, api.tasks.retrieve(made.id))


async def check_delete_by_name(api):
    made = await api.task()
    assert (await api.tasks.delete_by_name(made.name)).message != ""
    await raises(NotFoundError, api.tasks.retrieve_by_name(made.name))


async def check_query_workflow(api):
    # Only a Temporal agent's task has a workflow; tests/contract/test_agents.py asks one.
    made = await api.task()
    error = await raises(NotFoundError, api.tasks.query_workflow("state", task_id=made.id))
    assert error.body["message"] != ""


async def check_unknown(api):
    await raises(NotFoundError, api.tasks.retrieve(UNKNOWN_ID))
    await raises(NotFoundError, api.tasks.retrieve_by_name(fresh("nothing")))
    await raises(NotFoundError, api.tasks.update_by_id(UNKNOWN_ID, task_metadata={}))
    await raises(NotFoundError, api.tasks.complete(UNKNOWN_ID))


async def _closes(api, verb, status):
    made = await api.task()
    closed = await verb(made.id, reason="enough")
    has(closed, id=made.id, name=made.name, status=status, status_reason="enough")
    has(await api.tasks.retrieve(made.id), status=status, status_reason="enough")
    await raises(BadRequestError, verb(made.id))
