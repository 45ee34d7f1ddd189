"""Entries of the audit: written in groups, listed for admins, forgotten when they are old."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import literal_column
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.audit.models import FORGETS_BEFORE, MAX_TEXT, AuditEntry, AuditPage, AuditRead, Outcome
from agentex.auth.authorize import Operation, ResourceType, require, type_ref
from agentex.auth.principal import Principal
from agentex.database import Database, clock_now, rows, storable
from agentex.ids import first_id_of, new_id
from agentex.noted import Audited
from agentex.pagination import after_cursor, encode_cursor
from agentex.resources import Resources

# Entries that one transaction removes: 5,000 take some 50 ms.
FORGET_AT_ONCE = 5_000

_ADD_SQL = """
    INSERT INTO audit_entries (id, account_id, at, principal, operation, rpc_method, resource_type,
        resource_id, agent_id, outcome, status, request_id, address, user_agent)
    SELECT e.id, e.account_id, clock_timestamp(), e.principal, e.operation, e.rpc_method, e.resource_type,
        e.resource_id, e.agent_id, e.outcome, e.status, e.request_id, e.address, e.user_agent
    FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS e (id uuid, account_id text, principal text,
        operation text, rpc_method text, resource_type text, resource_id text, agent_id uuid, outcome text,
        status int, request_id text, address text, user_agent text)
"""
# By the ids, which are in the order of their making: what was written before the cutoff was made before it.
_FORGET_SQL = """
    DELETE FROM audit_entries WHERE id = ANY(ARRAY(
        SELECT id FROM audit_entries WHERE id < :first_young AND at < :cutoff ORDER BY id LIMIT :limit))
    RETURNING 1
"""


@dataclass(frozen=True)
class Entry:
    """One entry; the database says when."""

    account_id: str
    principal: str
    operation: str
    resource_type: Audited
    outcome: Outcome
    address: str
    resource_id: str | None = None
    rpc_method: str | None = None
    agent_id: str | None = None
    status: int | None = None
    request_id: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are asked for; None: whatever it is. at_after is inclusive, at_before is not."""

    principal: str | None = None
    operation: str | None = None
    resource_type: Audited | None = None
    resource_id: str | None = None
    outcome: Outcome | None = None
    at_after: datetime | None = None
    at_before: datetime | None = None


async def add(session: AsyncSession | Database, entries: Sequence[Entry]) -> Sequence[None]:
    """Write entries with one statement, each text cut to what an index takes."""
    written = [{"id": str(new_id()), **_storable(entry)} for entry in entries]
    await rows(session, _ADD_SQL, entries=json.dumps(written))
    return [None] * len(entries)


async def list_page(
    resources: Resources, principal: Principal, wanted: AuditFilter, *, limit: int, cursor: str | None
) -> AuditPage:
    """A page of the account's entries, newest first; raises Forbidden for who is no admin."""
    async with resources.db.read() as session:
        audit = type_ref(ResourceType.AUDIT, principal)
        await require(resources.authz, session, principal, Operation.READ, audit)
        query = select(AuditEntry).where(col(AuditEntry.account_id) == principal.account_id)
        for name in ("principal", "operation", "resource_type", "resource_id", "outcome"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(col(getattr(AuditEntry, name)) == value)
        if wanted.outcome not in {None, Outcome.DONE}:
            # The partial index's own condition, which Postgres does not see in a parameter.
            query = query.where(col(AuditEntry.outcome) != literal_column("'done'"))
        if wanted.at_after is not None:
            query = query.where(col(AuditEntry.at) >= wanted.at_after)
        if wanted.at_before is not None:
            query = query.where(col(AuditEntry.at) < wanted.at_before)
        if cursor is not None:
            query = query.where(after_cursor(cursor, col(AuditEntry.at), col(AuditEntry.id)))
        newest_first = query.order_by(col(AuditEntry.at).desc(), col(AuditEntry.id).desc())
        found = (await session.exec(newest_first.limit(limit + 1))).all()
    page = found[:limit]
    more = len(found) > limit
    return AuditPage(
        entries=[AuditRead.model_validate(entry) for entry in page],
        next_cursor=encode_cursor(page[-1].at, page[-1].id) if more else None,
    )


async def forget_old_entries(resources: Resources) -> bool:
    """Forget one batch of what is older than AGENTEX_AUDIT_RETENTION_DAYS; whether there may be more."""
    days = resources.settings.audit_retention_days
    if days == 0:
        return False
    async with resources.db.begin() as session:
        cutoff = await clock_now(session) - timedelta(days=days)
        # The trigger lets this transaction delete what is older, and nothing else.
        await rows(
            session, "SELECT set_config(:name, :cutoff, true)", name=FORGETS_BEFORE, cutoff=cutoff.isoformat()
        )
        removed = await rows(
            session, _FORGET_SQL, first_young=first_id_of(cutoff), cutoff=cutoff, limit=FORGET_AT_ONCE
        )
    return len(removed) == FORGET_AT_ONCE


def _storable(entry: Entry) -> dict[str, object]:
    return {
        name: storable(value)[:MAX_TEXT] if isinstance(value, str) else value
        for name, value in asdict(entry).items()
    }
