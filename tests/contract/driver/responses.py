"""Raw and streaming responses: headers, bodies that are read later, line by line."""

from __future__ import annotations

import json

from calls import TEXT, opened, settle


async def check_raw_response(api):
    task = await api.task()
    response = await settle(api.client.tasks.with_raw_response.retrieve(task.id))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert (await settle(response.parse())).id == task.id


async def check_raw_response_of_nested_resources(api):
    agent = await api.agent()
    listed = await settle(api.client.with_raw_response.agents.schedules.list(agent.id))
    assert (await settle(listed.parse())).total == 0
    task = await api.task(agent)
    made = await settle(api.client.messages.batch.with_raw_response.create(task_id=task.id, contents=[TEXT]))
    assert [one.task_id for one in await settle(made.parse())] == [task.id]


async def check_streaming_response(api):
    task = await api.task()
    async with opened(api.client.tasks.with_streaming_response.retrieve(task.id)) as response:
        assert response.status_code == 200
        assert json.loads(await settle(response.read()))["id"] == task.id


async def check_streamed_lines_of_a_message(api):
    agent = await api.agent("sync")
    asked = {"method": "message/send", "params": {"content": TEXT, "stream": True}, "id": 1}
    async with opened(api.client.agents.with_streaming_response.rpc(agent.id, **asked)) as response:
        assert response.headers["content-type"].startswith("application/x-ndjson")
        lines = []
        if api.mode == "sync":
            lines = list(response.iter_lines())
        else:
            async for line in response.iter_lines():
                lines.append(line)
    parsed = [json.loads(line) for line in lines if line]
    assert {one["id"] for one in parsed} == {1}
    assert "full" in {one["result"]["type"] for one in parsed}


async def check_event_stream_is_one(api):
    task = await api.task()
    await api.tasks.complete(task.id)
    response = await settle(api.client.tasks.with_raw_response.stream_events(task.id))
    assert response.headers["content-type"].startswith("text/event-stream")
    stream = await settle(response.parse())
    await settle(stream.close())
