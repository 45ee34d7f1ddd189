"""Messages as tests make and list them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx2

from agentex.resources import Resources
from tests.api.ledger.stage import fetch
from tests.support.api import TEXT, Json

AGENTS_TEXT: Json = TEXT | {"author": "agent"}


async def add(client: httpx2.AsyncClient, task: Json, **more: object) -> Json:
    """A message of the user, as it was answered."""
    response = await client.post("/messages", json={"task_id": task["id"], "content": TEXT, **more})
    assert response.status_code == 200, response.text
    return response.json()


async def add_many(resources: Resources, task: Json, count: int) -> None:
    """So many at once: every 100th is data, the others are texts; a second lies between two."""
    await fetch(
        resources,
        """
        INSERT INTO messages (id, account_id, task_id, content, created_at, updated_at)
        SELECT gen_random_uuid(), 'default', :task_id, CASE WHEN n % 100 = 0
                THEN '{"type": "data", "author": "agent", "style": "static", "data": {"kind": "log"}}'
                ELSE '{"type": "text", "author": "user", "style": "static", "format": "plain",
                    "content": "hi", "attachments": null}' END::jsonb,
            now() - make_interval(secs => n), now()
        FROM generate_series(1, :count) AS n
        """,
        task_id=UUID(task["id"]),
        count=count,
    )
    await fetch(resources, "ANALYZE messages")


async def listed(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    """The body of a list, which must be answered 200."""
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()
