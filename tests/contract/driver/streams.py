"""tasks.stream_events: what happens in a task, as it happens."""

from __future__ import annotations

from calls import TEXT, WHOLE_TEXT, each


async def check_stream_events(api):
    task = await api.task()
    await _follow(api, task, await api.tasks.stream_events(task.id, timeout=30))


async def check_stream_events_by_name(api):
    task = await api.task()
    await _follow(api, task, await api.tasks.stream_events_by_name(task.name, timeout=30))


async def check_message_in_parts(api):
    task = await api.task()
    stream = each(await api.tasks.stream_events(task.id, timeout=30))
    assert (await next_of(stream))["type"] == "connected"
    empty = {**TEXT, "author": "agent", "content": ""}
    begun = await api.messages.create(task_id=task.id, content=empty, streaming_status="IN_PROGRESS")
    start = await next_of(stream)
    assert (start["type"], start["parent_task_message"]["id"]) == ("start", begun.id)
    whole = {**empty, "content": "all of it"}
    await api.messages.update(begun.id, task_id=task.id, content=whole, streaming_status="DONE")
    said = await next_of(stream)
    assert (said["type"], said["delta"]) == ("delta", {"type": "text", "text_delta": "all of it"})
    done = await next_of(stream)
    assert (done["type"], done["parent_task_message"]["id"]) == ("done", begun.id)
    assert done["parent_task_message"]["content"]["content"] == "all of it"
    await api.tasks.complete(task.id)
    assert [event["type"] async for event in stream] == ["task_updated"]


async def check_stream_of_a_closed_task_ends(api):
    task = await api.task()
    await api.tasks.fail(task.id)
    events = [event async for event in each(await api.tasks.stream_events(task.id, timeout=30))]
    assert events[0] == {"type": "connected", "taskId": task.id}
    assert events[-1]["task"]["status"] == "FAILED"


async def _follow(api, task, stream):
    stream = each(stream)
    assert await next_of(stream) == {"type": "connected", "taskId": task.id}
    made = [await api.messages.create(task_id=task.id, content={**TEXT, "content": word}) for word in "ab"]
    for message in made:
        event = await next_of(stream)
        assert (event["type"], event["index"]) == ("full", None)
        assert event["parent_task_message"] == message.to_dict(exclude_unset=False, mode="json")
        assert event["content"] == {**WHOLE_TEXT, "content": message.content.content}
    await api.tasks.complete(task.id, reason="enough")
    rest = [event async for event in stream]
    assert [event["type"] for event in rest] == ["task_updated"]
    assert (rest[0]["task"]["id"], rest[0]["task"]["status"]) == (task.id, "COMPLETED")


async def next_of(stream):
    """The next event that says something of the task."""
    return await anext(stream)
