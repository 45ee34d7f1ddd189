"""A task to speak in."""

from __future__ import annotations

import httpx2
import pytest

from tests.support.api import Json, create_task


@pytest.fixture
async def task(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await create_task(client, agent)
