"""spans.*: traces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agentex import NotFoundError

from calls import UNKNOWN_ID, fresh, has, raises

START = datetime(2026, 5, 1, 12, 0, 0, 250000, tzinfo=UTC)
END = START + timedelta(seconds=1.5)


async def check_create_and_retrieve(api):
    task, trace_id = await api.task(), fresh("trace")
    whole = {
        "trace_id": trace_id,
        "name": "step",
        "start_time": START,
        "end_time": END,
        "input": {"q": 1},
        "output": [{"a": 1}, {"a": 2}],
        "data": {"tokens": 7},
        "task_id": task.id,
    }
    parent = await api.spans.create(**whole)
    has(parent, **whole)
    child_id = fresh("span")
    child = await api.spans.create(
        id=child_id, trace_id=trace_id, name="child", start_time=START, parent_id=parent.id
    )
    has(child, id=child_id, parent_id=parent.id, end_time=None, output=None, task_id=None)
    assert await api.spans.retrieve(parent.id) == parent
    assert await api.spans.retrieve(child_id) == child


async def check_update(api):
    made = await api.spans.create(trace_id=fresh("trace"), name="step", start_time=START, input={"q": 1})
    changed = await api.spans.update(made.id, end_time=END, output={"a": 1}, name="done")
    has(changed, id=made.id, name="done", start_time=START, end_time=END, input={"q": 1}, output={"a": 1})
    assert await api.spans.retrieve(made.id) == changed


async def check_update_of_everything(api):
    made = await api.spans.create(trace_id=fresh("trace"), name="step", start_time=START)
    task = await api.task()
    whole = {
        "trace_id": fresh("trace"),
        "name": "other",
        "start_time": END,
        "end_time": END + timedelta(seconds=1),
        "parent_id": fresh("span"),
        "task_id": task.id,
        "input": [{"q": 1}],
        "output": {"a": 1},
        "data": [{"d": 1}],
    }
    has(await api.spans.update(made.id, **whole), id=made.id, **whole)


async def check_list(api):
    task, trace_id = await api.task(), fresh("trace")
    made = [
        await api.spans.create(
            trace_id=trace_id, name=str(n), start_time=START + timedelta(seconds=n), task_id=task.id
        )
        for n in range(3)
    ]
    await api.spans.create(trace_id=fresh("trace"), name="other", start_time=START)
    order = {"order_by": "start_time", "order_direction": "asc"}
    assert await api.spans.list(trace_id=trace_id, **order) == made
    assert await api.spans.list(task_id=task.id, limit=2, page_number=2, **order) == made[2:]


async def check_unknown(api):
    await raises(NotFoundError, api.spans.retrieve(fresh("span")))
    await raises(NotFoundError, api.spans.update(UNKNOWN_ID, name="x"))
