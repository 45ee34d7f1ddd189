"""The typed errors, what they carry, and what the client sends again."""

from __future__ import annotations

import time

from agentex import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    NotFoundError,
    UnprocessableEntityError,
)

from calls import TEXT, UNKNOWN_ID, Api, fresh, has, raises, settle


async def check_bodies(api):
    missing = await raises(NotFoundError, api.tasks.retrieve(UNKNOWN_ID))
    assert_problem(missing, 404, 404)
    assert UNKNOWN_ID in missing.body["message"]
    task = await api.task()
    await api.tasks.complete(task.id)
    closed = await raises(BadRequestError, api.tasks.complete(task.id))
    assert_problem(closed, 400, 400)
    invalid = await raises(UnprocessableEntityError, api.tasks.list(limit=0))
    assert_problem(invalid, 422, 10422)
    assert invalid.body["status_code"] == 10422
    assert "limit" in invalid.body["message"]


async def check_too_large(api):
    content = {**TEXT, "content": "x" * 2_000_000}
    error = await raises(APIStatusError, api.messages.create(task_id=UNKNOWN_ID, content=content))
    assert_problem(error, 413, 413)


async def check_unknown_route(api):
    error = await raises(NotFoundError, post(api, "/nothing/here", {}))
    assert error.body["message"] != ""


async def check_never_a_409_and_never_again(api):
    agent = await api.agent()
    name = {"name": fresh("schedule"), "interval_seconds": 60, "initial_input": {"content": "x"}}
    await api.agents.schedules.create(agent.id, **name)
    before = len(api.requests)
    error = await raises(BadRequestError, api.agents.schedules.create(agent.id, **name))
    # The client would send 408, 409, 429 and 5xx again, unless it is told that this is useless.
    assert len(api.requests) == before + 1
    assert error.response.headers["x-should-retry"] == "false"
    assert not any(status == 409 for _, _, status, *_ in api.requests)


async def check_connection_error(api):
    # Nobody listens at the discard port.
    away = Api(api.mode, "http://127.0.0.1:9", api.agent_url, max_retries=0)
    await raises(APIConnectionError, away.tasks.list())
    await away.close()


async def check_a_silent_repeat_makes_no_second_row(api):
    agent = await api.agent()
    task = await api.task(agent)
    body = {"method": "event/send", "params": {"task_id": task.id, "content": TEXT}, "id": 1}
    first = await post(api, f"/agents/{agent.id}/rpc", body)
    # As the client does it after a lost answer: the same request, counted.
    repeated = await post(api, f"/agents/{agent.id}/rpc", body, {"x-stainless-retry-count": "1"})
    assert repeated["result"]["id"] == first["result"]["id"]
    assert len(await api.events.list(task_id=task.id, agent_id=agent.id)) == 1


async def check_options_of_the_client(api):
    agent = await api.agent()
    start = time.monotonic()
    other = api.client.with_options(timeout=20, max_retries=0)
    options = {"extra_headers": {"x-api-key": "k"}, "extra_query": {"x": "1"}}
    got = await settle(other.agents.retrieve(agent.id, **options))
    has(got, id=agent.id)
    assert time.monotonic() - start < 20


async def post(api, path, body, headers=None):
    """A request that has no method of its own."""
    return await settle(api.client.post(path, body=body, cast_to=object, options={"headers": headers or {}}))


def assert_problem(error, status, code):
    """A problem of RFC 9457 that also has the wire's members."""
    assert error.status_code == status
    assert error.body.keys() >= {"type", "title", "status", "detail", "instance", "message", "code", "data"}
    assert (error.body["status"], error.body["code"], error.body["data"]) == (status, code, None)
    assert error.response.headers["content-type"] == "application/problem+json"
    assert error.response.headers["x-should-retry"] == "false"
