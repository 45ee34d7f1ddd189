"""What the client raises where an authorizer allows reading only, or does not answer.

tests/contract/test_denied.py serves the API of these checks: x-test-account says whose the caller's are, and
DENIED of it is not allowed to anybody.
"""

from __future__ import annotations

from agentex import NotFoundError, PermissionDeniedError

from calls import TEXT, fresh, raises


async def check_readable_but_not_allowed(api):
    agent = await api.agent()
    task = await api.task(agent)
    error = await raises(PermissionDeniedError, api.agents.delete(agent.id))
    assert (error.status_code, error.body["status"], error.body["code"]) == (403, 403, 403)
    assert error.response.headers["x-should-retry"] == "false"
    await raises(PermissionDeniedError, api.agents.delete_by_name(agent.name))
    await raises(PermissionDeniedError, api.tasks.complete(task.id))
    await raises(PermissionDeniedError, api.tasks.update_by_id(task.id, task_metadata={}))
    await raises(PermissionDeniedError, api.messages.create(task_id=task.id, content=TEXT))
    assert (await api.tasks.retrieve(task.id)).status == "RUNNING"


async def check_not_readable_is_not_found(api):
    agent = await api.agent()
    task = await api.task(agent)
    other = {"extra_headers": {"x-test-account": fresh("account")}}
    await raises(NotFoundError, api.agents.retrieve(agent.id, **other))
    await raises(NotFoundError, api.agents.retrieve_by_name(agent.name, **other))
    await raises(NotFoundError, api.tasks.retrieve(task.id, **other))
    await raises(NotFoundError, api.tasks.complete(task.id, **other))
    assert await api.tasks.list(**other) == []


async def check_an_rpc_that_is_not_allowed(api):
    agent = await api.agent()
    task = await api.task(agent)
    params = {"task_id": task.id, "content": TEXT}
    answer = await api.agents.rpc(agent.id, method="event/send", params=params, id=4)
    assert (answer.id, answer.result) == (4, None)
    assert answer.error["code"] == -32603
