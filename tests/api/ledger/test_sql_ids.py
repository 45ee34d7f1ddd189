"""Ids that SQL makes are the ids that Python makes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from agentex.ids import FIRE_ID_SQL, UUID7_SQL, fire_id
from agentex.resources import Resources
from tests.api.ledger.stage import fetch

FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)


async def test_fire_ids_of_python_and_sql_are_the_same(resources: Resources) -> None:
    # Fixed seed: the same instants each time, over all the years in which instants exist.
    numbers = random.Random(5003)  # noqa: S311 - no secret
    span = int((LAST - FIRST).total_seconds())
    instants = [FIRST, LAST, datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)]
    instants += [
        FIRST + timedelta(seconds=numbers.randrange(span), microseconds=numbers.randrange(1_000_000))
        for _ in range(5_000)
    ]
    found = await fetch(
        resources,
        f"""SELECT {FIRE_ID_SQL.format("i")} AS fire
        FROM unnest(CAST(:instants AS timestamptz[])) WITH ORDINALITY AS u (i, n) ORDER BY n""",  # noqa: S608
        instants=instants,
    )
    assert [row["fire"] for row in found] == [fire_id(instant) for instant in instants]


async def test_fire_ids_do_not_hang_on_the_session_s_zone(resources: Resources) -> None:
    async with resources.db.begin() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("SET LOCAL timezone TO 'Asia/Kathmandu'")
        sql = FIRE_ID_SQL.format("timestamptz '2026-03-10 12:00:00Z'")
        found = (await connection.exec_driver_sql(f"SELECT {sql}")).scalar_one()
    assert found == "2026-03-10T12:00:00Z"


async def test_uuids_of_sql_are_of_version_7_and_of_now(resources: Resources) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    found = await fetch(resources, f"SELECT {UUID7_SQL} AS id FROM generate_series(1, 2000)")  # noqa: S608
    ids = [UUID(str(row["id"])) for row in found]
    assert {(id_.version, id_.variant) for id_ in ids} == {(7, "specified in RFC 4122")}
    assert len(set(ids)) == 2_000
    made = [datetime.fromtimestamp((id_.int >> 80) / 1_000, UTC) for id_ in ids]
    assert before <= min(made) <= max(made) <= datetime.now(UTC) + timedelta(seconds=5)
    # Ordered by the time they were made at: a later statement's ids are larger.
    later = await fetch(resources, f"SELECT {UUID7_SQL} AS id, pg_sleep(0.002)")
    assert UUID(str((await fetch(resources, f"SELECT {UUID7_SQL} AS id"))[0]["id"])) > UUID(
        str(later[0]["id"])
    )
