"""What stands in the audit."""

from __future__ import annotations

from typing import Any

from agentex.database import rows
from agentex.resources import Resources

# Of each entry anew.
_CHANGING = ("id", "at", "request_id")


async def entries(resources: Resources) -> list[dict[str, Any]]:
    """All entries, oldest first."""
    async with resources.db.read() as session:
        found = await rows(session, "SELECT * FROM audit_entries ORDER BY at, id")
    return [dict(row) for row in found]


async def last_entry(resources: Resources) -> dict[str, Any]:
    """The last entry, without what is new in each."""
    entry = (await entries(resources))[-1]
    return {name: value for name, value in entry.items() if name not in _CHANGING}
