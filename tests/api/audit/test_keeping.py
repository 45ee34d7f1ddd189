"""Entries are added, never changed, and go when they are old."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from agentex.audit import service
from agentex.audit.models import FORGETS_BEFORE, Outcome
from agentex.audit.service import Entry, forget_old_entries
from agentex.database import rows, sqlstate
from agentex.ids import first_id_of
from agentex.noted import Audited
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from agentex.sweep.sweep import Sweep
from tests.api.audit.entries import entries
from tests.api.ledger.stage import fetch

INSUFFICIENT_PRIVILEGE = "42501"


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


async def add(resources: Resources, *, days: float = 0) -> None:
    """An entry of that age."""
    entry = Entry("default", "user:alice", "delete_task", Audited.TASK, Outcome.DONE, "192.0.2.1")
    await service.add(resources.db, [entry])
    if days:
        newest = (await entries(resources))[-1]
        at, id_ = ago(days), UUID(int=first_id_of(ago(days)).int | uuid4().int >> 80)
        columns = ", ".join(name for name in newest if name not in {"id", "at"})
        async with resources.db.begin() as session:
            # As it would have been written then: rows cannot be changed.
            await rows(
                session,
                f"INSERT INTO audit_entries (id, at, {columns}) SELECT :id, :at, {columns} "  # noqa: S608 - columns
                "FROM audit_entries WHERE id = :newest",
                id=id_,
                at=at,
                newest=newest["id"],
            )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET principal = 'user:bob'",
        "UPDATE audit_entries SET id = gen_random_uuid()",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "INSERT INTO audit_entries TABLE audit_entries ON CONFLICT (id) DO UPDATE SET principal = 'bob'",
    ],
)
async def test_the_database_refuses_to_change_an_entry(resources: Resources, statement: str) -> None:
    await add(resources)
    before = await entries(resources)

    with pytest.raises(DBAPIError, match="audit_entries is append-only") as caught:
        await fetch(resources, statement)

    assert sqlstate(caught.value) == INSUFFICIENT_PRIVILEGE
    assert await entries(resources) == before


async def test_retention_itself_cannot_touch_what_is_younger(resources: Resources) -> None:
    await add(resources, days=10)
    delete = "DELETE FROM audit_entries WHERE set_config(:name, :before, true) IS NOT NULL"
    with pytest.raises(DBAPIError, match="append-only"):
        await fetch(resources, delete, name=FORGETS_BEFORE, before=ago(days=5).isoformat())
    assert len(await entries(resources)) == 2


async def test_the_leave_to_delete_ends_with_its_transaction(resources: Resources) -> None:
    await add(resources, days=401)
    await forget_old_entries(resources)
    await add(resources, days=401)
    with pytest.raises(DBAPIError, match="append-only"):
        await fetch(resources, "DELETE FROM audit_entries WHERE at < now() - interval '400 days'")


async def test_the_sweep_forgets_what_is_old(resources: Resources) -> None:
    await add(resources, days=401)
    await add(resources, days=399)

    sweep = Sweep(resources)
    await sweep.sweep_once()
    await sweep.close()

    assert [entry["at"] > ago(400) for entry in await entries(resources)] == [True] * 3


async def test_a_batch_at_a_time_oldest_first(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FORGET_AT_ONCE", 2)
    for days in (500, 600, 700):
        await add(resources, days=days)

    assert await forget_old_entries(resources) is True
    assert [entry["at"] < ago(400) for entry in await entries(resources)] == [True, False, False, False]
    assert await forget_old_entries(resources) is False
    assert len(await entries(resources)) == 3


@pytest.fixture
async def keeping_all(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings.model_copy(update={"audit_retention_days": 0})) as opened:
        yield opened


async def test_0_keeps_all(keeping_all: Resources) -> None:
    await add(keeping_all, days=4_000)
    assert await forget_old_entries(keeping_all) is False
    assert len(await entries(keeping_all)) == 2
