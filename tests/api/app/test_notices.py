"""Notices: heard in every process, and no reason to wait for ever when the connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentex.database import rows
from agentex.notices import CHANNEL, Notices
from agentex.resources import Resources
from agentex.settings import Settings


@pytest.fixture
async def notices(settings: Settings) -> AsyncIterator[Notices]:
    opened = Notices(settings)
    yield opened
    await opened.close()


async def notify(resources: Resources, key: str) -> None:
    await rows(resources.db, "SELECT pg_notify(:channel, :key)", channel=CHANNEL, key=key)


async def test_those_who_wait_for_a_key_hear_its_notice_and_no_others(
    resources: Resources, notices: Notices
) -> None:
    async with notices.hearing("a") as one, notices.hearing("a") as two, notices.hearing("b") as other:
        await notify(resources, "a")
        await one.wait()
        await two.wait()

        assert not other.is_set()


async def test_all_who_wait_share_one_connection(resources: Resources, notices: Notices) -> None:
    async with notices.hearing("a"), notices.hearing("b"):
        assert await listening(resources) == 1


async def test_a_lost_connection_wakes_everybody_and_the_next_who_waits_has_a_new_one(
    resources: Resources, notices: Notices
) -> None:
    async with notices.hearing("a") as heard:
        await rows(
            resources.db,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE :listen",
            listen=f'%LISTEN "{CHANNEL}"%',
        )
        await heard.wait()
    async with notices.hearing("a") as heard:
        await notify(resources, "a")
        await heard.wait()


async def test_closing_wakes_everybody(notices: Notices) -> None:
    async with notices.hearing("a") as heard:
        waiting = asyncio.create_task(heard.wait())
        await notices.close()

        assert await waiting


async def listening(resources: Resources) -> int:
    """How many connections of this database listen."""
    found = await rows(
        resources.db,
        """
        SELECT count(*) AS n FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE :listen AND pid <> pg_backend_pid()
        """,
        listen="LISTEN%",
    )
    return found[0]["n"]
