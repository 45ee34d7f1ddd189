"""Whether agents answer: GET /healthz of each, and what comes of it in the agent's row.

Failures in a row are counted there too, so it does not matter which process asks. Only what changes is
written: while all agents answer, a round is one SELECT for each 500 of them. Health is advice for people:
an agent that is Unhealthy is called as ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.acp.client import HttpAnswer
from agentex.agents.models import AgentStatus
from agentex.database import JsonObject, rows, storable
from agentex.errors import AgentCallFailed
from agentex.resources import Resources
from agentex.telemetry.metrics import AGENT_HEALTH_CHANGES, AGENT_PROBES

log = logging.getLogger(__name__)

AGENTS_AT_ONCE = 500
# Each that hangs keeps its place for AGENTEX_AGENT_HEALTH_TIMEOUT_SECONDS.
PROBES_AT_ONCE = 50
# It answers, and has no such route: an agent that was not made with the SDK may lack it.
_NO_HEALTHZ = frozenset({404, 405})
SHOWN_ID_CHARACTERS = 80


@dataclass(frozen=True)
class Asked:
    """An agent that can be asked, as it was before it was."""

    id: UUID
    acp_url: str
    registered_at: datetime | None
    status: str
    status_reason: str | None
    health_failures: int

    def is_known(self, problem: str | None) -> bool:
        """Whether nothing is to be written of this outcome."""
        if problem is None:
            return self.status == AgentStatus.READY and self.health_failures == 0
        return self.status == AgentStatus.UNHEALTHY and self.status_reason == problem


async def check_health(resources: Resources) -> None:
    """Ask every agent that is Ready or Unhealthy, in all accounts, and record what has changed."""
    after = UUID(int=0)
    while True:
        async with resources.db.read() as session:
            found = await _some_after(session, after)
        if found:
            await _check(resources, found)
        if len(found) < AGENTS_AT_ONCE:
            return
        after = found[-1].id


def health_problem(answer: HttpAnswer, agent_id: UUID) -> str | None:
    """What is wrong with an answer to GET /healthz (wire.md §1b); None when it is well."""
    if answer.status in _NO_HEALTHZ:
        return None
    if answer.status != 200:
        return f"GET /healthz answered HTTP {answer.status}"
    said = _object(answer.body)
    if said.get("status") != "healthy":
        return 'GET /healthz did not answer {"status": "healthy"}'
    other = said.get("agent_id")
    if not other or str(other).lower() == str(agent_id):
        return None
    return f"GET /healthz answered as another agent, {str(other)[:SHOWN_ID_CHARACTERS]!r}"


async def _check(resources: Resources, found: Sequence[Asked]) -> None:
    places = asyncio.Semaphore(PROBES_AT_ONCE)

    async def ask(agent: Asked) -> str | None:
        async with places:
            return await _ask(resources, agent)

    problems = await asyncio.gather(*[ask(agent) for agent in found])
    news = [
        (agent, problem)
        for agent, problem in zip(found, problems, strict=True)
        if not agent.is_known(problem)
    ]
    if news:
        async with resources.db.begin() as session:
            await _record(session, news, resources.settings.agent_health_failures)


async def _ask(resources: Resources, agent: Asked) -> str | None:
    try:
        answer = await resources.acp.health(agent.acp_url, resources.settings.agent_health_timeout_seconds)
    except AgentCallFailed as failure:
        problem: str | None = failure.message
    else:
        problem = health_problem(answer, agent.id)
    AGENT_PROBES.labels(result="answered" if problem is None else "failed").inc()
    return storable(problem)


async def _some_after(session: AsyncSession, after: UUID) -> list[Asked]:
    found = await rows(
        session,
        """
        SELECT id, acp_url, registered_at, status, status_reason, health_failures FROM agents
        WHERE id > :after AND deleted_at IS NULL AND status IN ('Ready', 'Unhealthy')
        ORDER BY id LIMIT :limit
        """,
        after=after,
        limit=AGENTS_AT_ONCE,
    )
    return [Asked(**row) for row in found]


async def _record(session: AsyncSession, news: Sequence[tuple[Asked, str | None]], failures: int) -> None:
    """Write outcomes set-based; not of an agent that has registered or changed its status meanwhile."""
    changed = await rows(
        session,
        _RECORD_SQL,
        ids=[agent.id for agent, _ in news],
        registered=[agent.registered_at for agent, _ in news],
        problems=[problem for _, problem in news],
        failures=failures,
    )
    for row in changed:
        AGENT_HEALTH_CHANGES.labels(status=row["status"]).inc()
        log.warning(
            "an agent's health has changed",
            extra={
                "action": "agent.health",
                "agent_id": str(row["id"]),
                "status": row["status"],
                "reason": row["status_reason"],
            },
        )


# Locked in one order, so that two processes that both believe they sweep cannot deadlock.
_RECORD_SQL = """
    WITH told AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:registered AS timestamptz[]),
            CAST(:problems AS text[])) AS t (id, registered_at, problem)
    ), judged AS (
        SELECT a.id, a.status AS before, t.problem,
            CASE WHEN t.problem IS NULL THEN 0 ELSE least(a.health_failures + 1, :failures) END AS failed
        FROM agents a JOIN told t ON t.id = a.id
        WHERE a.registered_at IS NOT DISTINCT FROM t.registered_at
            AND a.deleted_at IS NULL AND a.status IN ('Ready', 'Unhealthy')
        ORDER BY a.id FOR NO KEY UPDATE OF a
    ), decided AS (
        SELECT *, CASE WHEN problem IS NULL THEN 'Ready' WHEN failed >= :failures THEN 'Unhealthy'
            ELSE before END AS after FROM judged
    ), written AS (
        UPDATE agents a SET status = d.after, health_failures = d.failed,
            status_reason = CASE WHEN d.after = 'Unhealthy' THEN coalesce(d.problem, a.status_reason)
                WHEN d.before = 'Unhealthy' THEN NULL ELSE a.status_reason END,
            updated_at = CASE WHEN d.after = d.before THEN a.updated_at ELSE clock_timestamp() END
        FROM decided d WHERE a.id = d.id
        RETURNING a.id, a.status, a.status_reason, d.before
    )
    SELECT id, status, status_reason FROM written WHERE status <> before
"""


def _object(body: bytes) -> JsonObject:
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("JsonObject", found) if isinstance(found, dict) else {}
