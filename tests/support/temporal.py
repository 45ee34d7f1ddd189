"""A Temporal dev server for tests. Tests that share one are kept apart by the prefix of their ids."""

from __future__ import annotations

import uuid
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from agentex.dev.ports import free_port
from agentex.dev.temporal import EmbeddedTemporal


def start_temporal(directory: Path) -> EmbeddedTemporal:
    """A running server in memory (0.4 s); the caller stops it. Its log is in `directory`."""
    temporal = EmbeddedTemporal(free_port(), log=directory / "temporal.log")
    temporal.start()
    return temporal


def fresh_prefix() -> str:
    """A value for AGENTEX_TEMPORAL_TASK_QUEUE that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


async def schedule_ids(client: Client, prefix: str) -> set[str]:
    """The ids of the Temporal Schedules below a prefix. The listing may lag behind by a second."""
    return {entry.id async for entry in await client.list_schedules() if entry.id.startswith(prefix)}


async def delete_schedules(client: Client, prefix: str) -> None:
    """Delete them out of band, as an operator might."""
    for schedule_id in await schedule_ids(client, prefix):
        try:
            await client.get_schedule_handle(schedule_id).delete()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
