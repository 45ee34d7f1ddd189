"""A task with all that hangs on it as one JSON document, page by page.

What a reader has not taken is not read, and no connection is held between two pages: a slow reader costs a
page of memory. What is written meanwhile may or may not be in it; a task that is closed does not change. When
the database fails in the middle the answer is cut off, which is no JSON.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import rows
from agentex.resources import Resources
from agentex.snapshots.parts import PARTS, Part
from agentex.tasks.models import TaskReadWithAgents

# A page ends with the row that fills it; a message may have up to 1 MiB.
PAGE_ROWS = 200
PAGE_BYTES = 1_048_576


async def export(resources: Resources, task: TaskReadWithAgents) -> AsyncGenerator[bytes]:
    """The pieces of the document, `models.Snapshot`; the caller has asked whether the task may be read."""
    whole = task.model_dump(mode="json")
    head = {"task_id": whole["id"], "agents": whole.pop("agents"), "task": whole}
    yield to_json(head)[:-1]
    for part in PARTS:
        yield f', "{part.name}": ['.encode()
        separator = ""
        async for page in _pages(resources, part, task.id):
            yield (separator + ", ".join(row["entry"] for row in page)).encode()
            separator = ", "
        yield b"]"
    yield b"}"


async def _pages(resources: Resources, part: Part, task_id: UUID) -> AsyncGenerator[Sequence[RowMapping]]:
    limit, last = PAGE_ROWS, None
    while True:
        async with resources.db.read() as session:
            page = await _page(session, part, task_id, last, limit)
        if not page:
            return
        yield page
        last = page[-1]
        # Rows that the bytes leave no room for are made into JSON for nothing.
        limit = min(PAGE_ROWS, 2 * len(page))


async def _page(
    session: AsyncSession, part: Part, task_id: UUID, last: RowMapping | None, limit: int
) -> Sequence[RowMapping]:
    """The entries behind the last one, as JSON texts: so many at most, and no more than fill the bytes."""
    order = ", ".join(part.order)
    behind = f"AND ({order}) > ({', '.join(f':{column}' for column in part.order)})" if last else ""
    return await rows(
        session,
        f"""
        WITH found AS MATERIALIZED (
            SELECT {order}, (to_jsonb(t) - 'account_id')::text AS entry FROM {part.table} t
            WHERE task_id = :task_id {behind} ORDER BY {order} LIMIT :limit
        ), measured AS (
            SELECT *, sum(octet_length(entry)) OVER (ORDER BY {order}) - octet_length(entry) AS before
            FROM found
        )
        SELECT {order}, entry FROM measured WHERE before < :bytes ORDER BY {order}
        """,
        task_id=task_id,
        limit=limit,
        bytes=PAGE_BYTES,
        **({column: last[column] for column in part.order} if last else {}),
    )
