"""messages.*: all kinds of content, batches, filters, both ways of paging."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from agentex import NotFoundError, UnprocessableEntityError

from calls import TEXT, UNKNOWN_ID, WHOLE_TEXT, has, plain, raises

ATTACHMENT = {"file_id": "f1", "name": "a.txt", "size": 12, "type": "text/plain"}
# As they are sent, with every field that they have.
CONTENTS = {
    "text": {
        "type": "text",
        "author": "agent",
        "content": "# Hello",
        "format": "markdown",
        "style": "active",
        "attachments": [ATTACHMENT],
    },
    "data": {"type": "data", "author": "agent", "data": {"rows": [1, None]}, "style": "static"},
    "tool_request": {
        "type": "tool_request",
        "author": "agent",
        "tool_call_id": "c1",
        "name": "search",
        "arguments": {"q": "x"},
        "style": "static",
    },
    "tool_response": {
        "type": "tool_response",
        "author": "agent",
        "tool_call_id": "c1",
        "name": "search",
        "content": {"hits": []},
        "is_error": False,
        "style": "static",
    },
    "reasoning": {
        "type": "reasoning",
        "author": "agent",
        "summary": ["s"],
        "content": ["c"],
        "style": "static",
    },
}


async def check_create_and_retrieve_each_kind(api):
    task = await api.task()
    for content in CONTENTS.values():
        made = await api.messages.create(task_id=task.id, content=content)
        assert plain(made.content) == content
        assert made.task_id == task.id
        assert made.created_at.tzinfo is not None
        assert await api.messages.retrieve(made.id) == made


async def check_create_at_an_instant(api):
    at = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    made = await api.messages.create(task_id=(await api.task()).id, content=TEXT, created_at=at)
    assert made.created_at == at
    assert plain(made.content) == WHOLE_TEXT


async def check_update(api):
    task = await api.task()
    begun = await api.messages.create(
        task_id=task.id, content={**TEXT, "content": ""}, streaming_status="IN_PROGRESS"
    )
    assert begun.streaming_status == "IN_PROGRESS"
    done = await api.messages.update(
        begun.id, task_id=task.id, content=CONTENTS["text"], streaming_status="DONE"
    )
    has(done, id=begun.id, task_id=task.id, content=CONTENTS["text"], streaming_status="DONE")
    assert done.updated_at is not None
    assert await api.messages.retrieve(begun.id) == done


async def check_list(api):
    task = await api.task()
    made = [await api.messages.create(task_id=task.id, content={**TEXT, "content": str(n)}) for n in range(3)]
    newest_first = await api.messages.list(task_id=task.id)
    assert newest_first == made[::-1]
    order = {"order_by": "created_at", "order_direction": "asc"}
    assert await api.messages.list(task_id=task.id, limit=2, page_number=2, **order) == made[2:]


async def check_list_with_filters(api):
    task = await api.task()
    made = {}
    for name, content in CONTENTS.items():
        made[name] = await api.messages.create(task_id=task.id, content=content)
    made["begun"] = await api.messages.create(task_id=task.id, content=TEXT, streaming_status="IN_PROGRESS")

    async def found(*filters):
        listed = await api.messages.list(task_id=task.id, filters=json.dumps(list(filters)))
        return {name for name, message in made.items() if message in listed}

    assert await found({"content": {"type": "data"}}) == {"data"}
    assert await found({"content": {"type": "data"}}, {"content": {"type": "reasoning"}}) == {
        "data",
        "reasoning",
    }
    assert await found({"content": {"type": "text", "author": "agent"}}) == {"text"}
    assert await found({"streaming_status": "IN_PROGRESS"}) == {"begun"}
    tools = [{"content": {"type": kind}, "exclude": True} for kind in ("tool_request", "tool_response")]
    assert await found(*tools) == {"text", "data", "reasoning", "begun"}


async def check_list_paginated(api):
    task = await api.task()
    made = [await api.messages.create(task_id=task.id, content={**TEXT, "content": str(n)}) for n in range(5)]
    first = await api.messages.list_paginated(task_id=task.id, limit=2)
    assert (first.data, first.has_more) == ([made[4], made[3]], True)
    second = await api.messages.list_paginated(task_id=task.id, limit=2, cursor=first.next_cursor)
    assert (second.data, second.has_more) == ([made[2], made[1]], True)
    last = await api.messages.list_paginated(task_id=task.id, limit=2, cursor=second.next_cursor)
    assert (last.data, last.has_more) == ([made[0]], False)


async def check_list_paginated_towards_newer(api):
    task = await api.task()
    made = [await api.messages.create(task_id=task.id, content={**TEXT, "content": str(n)}) for n in range(4)]
    first = await api.messages.list_paginated(task_id=task.id, limit=3)
    newer = await api.messages.list_paginated(
        task_id=task.id, limit=3, cursor=first.next_cursor, direction="newer"
    )
    # The cursor stands at the oldest of the first page.
    assert {one.id for one in newer.data} == {made[2].id, made[3].id}
    only = json.dumps([{"content": {"type": "data"}}])
    assert (await api.messages.list_paginated(task_id=task.id, filters=only)).data == []


async def check_batch_create(api):
    task = await api.task()
    made = await api.messages.batch.create(task_id=task.id, contents=list(CONTENTS.values()))
    assert [plain(one.content) for one in made] == list(CONTENTS.values())
    assert {one.task_id for one in made} == {task.id}
    order = {"order_by": "created_at", "order_direction": "asc"}
    assert await api.messages.list(task_id=task.id, **order) == made


async def check_batch_create_at_an_instant(api):
    at = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    task = await api.task()
    made = await api.messages.batch.create(task_id=task.id, contents=[TEXT, TEXT], created_at=at)
    assert made[0].created_at == at
    order = {"order_by": "created_at", "order_direction": "asc"}
    assert await api.messages.list(task_id=task.id, **order) == made


async def check_batch_update(api):
    task = await api.task()
    made = await api.messages.batch.create(task_id=task.id, contents=[TEXT, TEXT, TEXT])
    updates = {made[0].id: CONTENTS["text"], made[2].id: CONTENTS["data"]}
    changed = await api.messages.batch.update(task_id=task.id, updates=updates)
    assert {one.id: plain(one.content) for one in changed} == updates
    assert plain((await api.messages.retrieve(made[1].id)).content) == WHOLE_TEXT
    assert plain((await api.messages.retrieve(made[2].id)).content) == CONTENTS["data"]


async def check_bad_ones(api):
    task = await api.task()
    await raises(NotFoundError, api.messages.retrieve(UNKNOWN_ID))
    await raises(NotFoundError, api.messages.create(task_id=UNKNOWN_ID, content=TEXT))
    await raises(UnprocessableEntityError, api.messages.create(task_id=task.id, content={"type": "x"}))
    await raises(UnprocessableEntityError, api.messages.list(task_id=task.id, filters="[{"))
    await raises(UnprocessableEntityError, api.messages.list_paginated(task_id=task.id, cursor="?"))
