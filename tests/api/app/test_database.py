"""The database: a process that is stopped inside a transaction, and statements on the driver itself."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from agentex.database import Database, is_unavailable, rows, sqlstate, violates
from agentex.resources import Resources
from tests.api.ledger.stage import add_agent

LOCK = "SELECT id FROM agents FOR UPDATE"


async def test_a_process_that_is_stopped_inside_a_transaction_keeps_its_locks_for_a_while_only(
    resources: Resources,
) -> None:
    """Else the clocks that it was opening would ring in vain until it goes on."""
    await add_agent(resources)
    stopped = Database(
        resources.settings.model_copy(update={"database_idle_transaction_timeout_seconds": 0.3})
    )

    async def next_in_line() -> int:
        async with resources.db.begin() as session:
            return len(await rows(session, LOCK))

    async def be_stopped() -> None:
        async with stopped.begin() as session:
            await rows(session, LOCK)
            async with asyncio.timeout(20):
                assert await next_in_line() == 1
            await rows(session, LOCK)

    try:
        with pytest.raises(DBAPIError) as raised:
            await be_stopped()
        assert is_unavailable(raised.value)
    finally:
        await stopped.close()


@pytest.fixture
async def agent_id(resources: Resources) -> UUID:
    """An agent named echo."""
    return (await add_agent(resources)).id


async def test_a_statement_on_the_driver_takes_and_gives_what_a_sessions_does(
    resources: Resources, agent_id: UUID
) -> None:
    sql = "SELECT id, name, CAST(:word AS text) || '::' || CAST(:word AS text) AS twice FROM agents"

    on_driver = await rows(resources.db, f"{sql} WHERE id = :id", word="a", id=agent_id)
    async with resources.db.read() as session:
        in_session = await rows(session, f"{sql} WHERE id = :id", word="a", id=agent_id)

    assert [dict(row) for row in on_driver] == [dict(row) for row in in_session]
    assert [dict(row) for row in on_driver] == [{"id": agent_id, "name": "echo", "twice": "a::a"}]


async def test_an_error_on_the_driver_is_the_one_that_a_session_raises(
    resources: Resources, agent_id: UUID
) -> None:
    twice = "INSERT INTO agents SELECT * FROM agents WHERE id = :id"

    with pytest.raises(IntegrityError) as on_driver:
        await rows(resources.db, twice, id=agent_id)
    with pytest.raises(IntegrityError) as in_session:
        async with resources.db.single() as session:
            await rows(session, twice, id=agent_id)

    both = [on_driver.value, in_session.value]
    assert [sqlstate(error) for error in both] == ["23505", "23505"]
    assert [violates(error, "pk_agents") for error in both] == [True, True]
    assert [str(agent_id) in str(error) for error in both] == [False, False]


async def test_a_connection_that_the_driver_has_lost_is_an_outage_and_the_next_one_is_new(
    resources: Resources,
) -> None:
    end = "SELECT pg_terminate_backend(pg_backend_pid())"

    with pytest.raises(DBAPIError) as lost:
        await rows(resources.db, end)

    assert is_unavailable(lost.value)
    assert [dict(row) for row in await rows(resources.db, "SELECT 1 AS one")] == [{"one": 1}]


async def test_a_statement_that_is_canceled_on_the_driver_leaves_nothing_to_the_next_one(
    resources: Resources,
) -> None:
    slow = asyncio.create_task(rows(resources.db, "SELECT pg_sleep(60), 'left over' AS word"))
    while not await rows(resources.db, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
        pass
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow

    found = await asyncio.gather(*[rows(resources.db, "SELECT 'new' AS word") for _ in range(20)])

    assert {row["word"] for result in found for row in result} == {"new"}
    # Its connection is dropped, but Postgres looks for that only when it has something to say.
    while await rows(
        resources.db,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
    ):
        pass
