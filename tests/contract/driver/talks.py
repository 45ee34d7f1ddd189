"""What people do with the agents of tests/contract/agents: talk, follow, interrupt, cancel."""

from __future__ import annotations

from calls import TEXT, each, fresh, has, plain, until

ORDER = {"order_by": "created_at", "order_direction": "asc"}


def text(words):
    return {**TEXT, "content": words}


async def check_sync_plain(api):
    answer = await api.agents.send_message(agent_name="sync-plain", params={"content": text("hi you")}, id=1)
    assert [one.content.type for one in answer.result] == ["text", "data"]
    has(answer.result[0].content, author="agent", content="You said: hi you", format="markdown")
    [task_id] = {one.task_id for one in answer.result}
    assert answer.result[1].content.data == {"letters": 6, "task": task_id}


async def check_sync_streaming(api):
    params = {"content": text("a b"), "task_name": fresh("talk")}
    stream = await api.agents.send_message_stream(agent_name="sync-streaming", params=params, id="s")
    updates = [update.result async for update in each(stream)]
    kinds = [(update.type, update.index) for update in updates]
    assert kinds == [("start", 0), *[("delta", 0)] * 4, ("done", 0), ("full", 1)]
    words = [update.delta.text_delta for update in updates if update.type == "delta"]
    assert words == ["You ", "said: ", "a ", "b "]
    # Each update names its message, which stands in the task when all is said.
    names = [update.parent_task_message.id for update in updates]
    assert len(set(names[:-1])) == 1
    task = await api.tasks.retrieve_by_name(params["task_name"])
    said = await api.messages.list(task_id=task.id, **ORDER)
    assert [one.id for one in said[1:]] == [names[0], names[-1]]
    assert [one.content.type for one in said] == ["text", "text", "tool_request"]
    has(said[1], streaming_status="DONE")
    assert said[1].content.content == "You said: a b "


async def check_sync_streaming_whole(api):
    answer = await api.agents.send_message(agent_name="sync-streaming", params={"content": text("a b")})
    assert [one.content.type for one in answer.result] == ["text", "tool_request"]
    assert answer.result[0].content.content == "You said: a b "
    assert answer.result[1].content.arguments == {"q": "x"}


async def check_async_base(api):
    task = await begin(api, "async-base")
    # It has spoken before task/create was answered.
    assert await words_of(api, task) == ["Hello from async-base"]
    stream = each(await api.tasks.stream_events(task.id, timeout=30))
    assert await anext(stream) == {"type": "connected", "taskId": task.id}
    await send(api, "async-base", task, "one")
    events = [await anext(stream) for _ in range(2)]
    assert [event["type"] for event in events] == ["full", "full"]
    contents = [event["content"]["content"] for event in events]
    assert contents == ["one", "You said: one"]
    answer = await api.agents.cancel_task(agent_name="async-base", params={"task_id": task.id})
    has(answer.result, id=task.id, status="CANCELED")
    rest = [event async for event in stream]
    assert rest[-1]["task"]["status"] == "CANCELED"
    await told(api, task, "cancel")


async def check_interrupt(api):
    task = await begin(api, "async-base")
    params = {"task_id": task.id}
    await api.agents.rpc_by_name("async-base", method="task/interrupt", params=params)
    await told(api, task, "interrupt")
    assert (await api.tasks.retrieve(task.id)).status == "INTERRUPTED"
    await send(api, "async-base", task, "go on")
    await says(api, task, "You said: go on")
    assert (await api.tasks.retrieve(task.id)).status == "RUNNING"


async def check_async_streaming(api):
    task = await begin(api, "async-streaming")
    stream = each(await api.tasks.stream_events(task.id, timeout=30))
    await anext(stream)
    await send(api, "async-streaming", task, "one two")
    echo = await anext(stream)
    assert (echo["type"], echo["content"]["content"]) == ("full", "one two")
    events = [await anext(stream)]
    while events[-1]["type"] not in ("done", "full"):
        events.append(await anext(stream))
    # With a Redis the words come as they are written; where those are late, the message comes whole.
    assert events[0]["type"] == "start"
    assert {event["type"] for event in events[1:-1]} <= {"delta"}
    assert len({event["parent_task_message"]["id"] for event in events}) == 1
    deltas = "".join(event["delta"]["text_delta"] for event in events[1:-1])
    said = events[-1]["content"]["content"] if events[-1]["type"] == "full" else deltas
    assert said == "You said: one two "
    await says(api, task, "You said: one two ")
    [_, message] = await api.messages.list(task_id=task.id, **ORDER)
    has(message, id=events[0]["parent_task_message"]["id"], streaming_status="DONE")


async def check_multi_turn(api):
    task = await begin(api, "multi-turn")
    await send(api, "multi-turn", task, "one")
    await says(api, task, "Turn 1: one")
    await send(api, "multi-turn", task, "two")
    await says(api, task, "Turn 2: one, two")
    [state] = await api.states.list(task_id=task.id)
    assert state.state == {"turns": ["one", "two"]}


async def check_traced(api):
    task = await begin(api, "traced")
    await send(api, "traced", task, "four")
    await says(api, task, "4 letters")

    async def both():
        found = await api.spans.list(trace_id=task.id)
        return {one.name: one for one in found} if len(found) == 2 else None

    spans = await until(both, "two spans")
    turn, step = spans["turn"], spans["count"]
    has(turn, trace_id=task.id, task_id=task.id, input={"said": "four"}, output={"answer": "counted"})
    has(step, parent_id=turn.id, trace_id=task.id, output={"letters": 4})
    assert turn.data["kind"] == "turn"
    assert turn.start_time <= step.start_time <= step.end_time <= turn.end_time
    assert {one.id for one in await api.spans.list(task_id=task.id)} == {turn.id, step.id}


async def check_batch_events(api):
    task = await begin(api, "batch-events")
    for word in "abcde":
        await send(api, "batch-events", task, word)
    events = await api.events.list(task_id=task.id, agent_id=(await agent_of(api, task)).id)

    async def read_all():
        [tracker] = await api.tracker.list(task_id=task.id)
        return tracker if tracker.last_processed_event_id == events[-1].id else None

    has(await until(read_all, "the cursor at the last event"), status="ready")
    batches = [words.removeprefix("Batch: ").split(", ") for words in await words_of(api, task)]
    assert [word for batch in batches for word in batch] == list("abcde")


async def check_langgraph(api):
    task = await begin(api, "langgraph-memory")
    await send(api, "langgraph-memory", task, "one")
    await says(api, task, "Turn 1: one")
    await send(api, "langgraph-memory", task, "two")
    await says(api, task, "Turn 2: one, two")
    checkpoints = await api.checkpoints.list(thread_id=task.id)
    # Of each turn one for the input and one for each of its steps, the newest first.
    assert [one.metadata["step"] for one in checkpoints] == [6, 5, 4, 3, 2, 1, 0, -1]
    parents = [one.parent_checkpoint_id for one in checkpoints]
    assert parents == [one.checkpoint_id for one in checkpoints[1:]] + [None]


async def check_temporal(api):
    task = await begin(api, "temporal")
    await says(api, task, "Hello from temporal")
    await send(api, "temporal", task, "one")
    await says(api, task, "You said: one")
    answer = await api.tasks.query_workflow("turns", task_id=task.id)
    assert answer == {"task_id": task.id, "query": "turns", "result": {"turns": ["one"], "interrupts": 0}}
    await api.agents.rpc_by_name("temporal", method="task/interrupt", params={"task_id": task.id})

    async def interrupted():
        return (await api.tasks.query_workflow("turns", task_id=task.id))["result"]["interrupts"] == 1

    await until(interrupted, "the workflow's interrupt")
    canceled = await api.agents.cancel_task(agent_name="temporal", params={"task_id": task.id})
    assert canceled.result.status == "CANCELED"


async def begin(api, name, **params):
    params = {"name": fresh("talk"), **params}
    return (await api.agents.create_task(agent_name=name, params=params)).result


async def send(api, name, task, words):
    params = {"task_id": task.id, "content": text(words)}
    return (await api.agents.send_event(agent_name=name, params=params)).result


async def words_of(api, task):
    """The texts of a task, oldest first."""
    said = await api.messages.list(task_id=task.id, **ORDER)
    return [one.content.content for one in said]


async def says(api, task, words):
    """Return when the agent has said this."""

    async def said():
        return words in await words_of(api, task)

    await until(said, f"{words!r} of the agent")


async def told(api, task, word):
    """Return when the agent has written down what it was told."""

    async def written():
        return (await api.tasks.retrieve(task.id)).task_metadata == {"told": word}

    await until(written, f"that the agent was told to {word}")


async def agent_of(api, task):
    [agent] = await api.agents.list(task_id=task.id)
    assert plain(agent)["id"] == agent.id
    return agent
