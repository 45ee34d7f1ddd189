"""Pages: up to 200 runs of one agent (small agents share one) that one workflow carries to their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from agentex.database import is_unavailable, rows
from agentex.executors.base import Lane
from agentex.executors.registry import LANE_SQL
from agentex.ids import new_id, page_workflow_id
from agentex.resources import Resources
from agentex.runs.workflow import PageRequest, PageWorkflow
from agentex.settings import Settings, WorkerQueue
from agentex.telemetry.metrics import TEMPORAL_ERRORS, UNEXPECTED_ERRORS

log = logging.getLogger(__name__)

PAGE_SIZE = 200
# From this many runs in a batch on, an agent's runs have pages of their own.
OWN_PAGE_FROM = 20
# How long single runs are collected before a page of them is started.
COLLECT_SECONDS = 0.01

# CTEs that give each row of {source} (id_key, account_id, agent_id, acp_type, waits) that waits to be
# launched its lane and page, and the others null. Pages are ordered by their rank within their account, then
# by account, so that one account's thousand runs do not stand before another's one. No join: the planner
# takes a CTE for a handful of rows, and a nested loop over 10,000 took half a minute.
PLACE_SQL = f"""
    lanes AS (
        SELECT *, CASE WHEN waits THEN {LANE_SQL.format("acp_type")} END AS lane FROM {{source}}
    ), grouped AS (
        SELECT *,
            CASE WHEN count(*) OVER (PARTITION BY lane, agent_id) >= {OWN_PAGE_FROM} THEN agent_id END AS own,
            row_number() OVER (PARTITION BY lane, account_id ORDER BY id_key) AS account_rank
        FROM lanes
    ), paged AS (
        SELECT *,
            CASE WHEN own IS NULL THEN '' ELSE account_id END AS page_account,
            (row_number() OVER (PARTITION BY lane, own ORDER BY account_rank, account_id) - 1) / {PAGE_SIZE}
                AS own_page
        FROM grouped
    ), ranked AS (
        SELECT *, dense_rank() OVER (PARTITION BY lane, page_account ORDER BY own_page, own) AS account_page
        FROM paged
    ), placed AS (
        SELECT *,
            CASE WHEN waits
                THEN (dense_rank() OVER (PARTITION BY lane ORDER BY account_page, page_account) - 1)::int
                END AS page
        FROM ranked
    )
"""

_QUEUES = {Lane.DELIVER: WorkerQueue.DELIVER, Lane.ANSWER: WorkerQueue.ANSWERS}


@dataclass(frozen=True)
class PageRef:
    """One page of one batch."""

    batch_id: UUID
    lane: Lane
    page: int


def page_queue(settings: Settings, lane: Lane) -> str:
    """The task queue that serves a lane."""
    return settings.task_queue(_QUEUES[lane])


async def put_into_pages(session: AsyncSession, run_ids: Sequence[UUID]) -> list[PageRef]:
    """Give runs that wait (due, not claimed) a new batch and pages; returns the pages to start."""
    batch_id = new_id()
    found = await rows(
        session,
        f"""
        WITH waiting AS (
            SELECT r.id, r.id AS id_key, r.account_id, r.agent_id, a.acp_type, true AS waits
            FROM runs r JOIN agents a ON a.id = r.agent_id
            WHERE r.id = ANY(CAST(:ids AS uuid[])) AND r.status = 'due'
            ORDER BY r.id FOR NO KEY UPDATE OF r
        ), {PLACE_SQL.format(source="waiting")}, moved AS (
            UPDATE runs r SET batch_id = :batch_id, lane = p.lane, page = p.page,
                updated_at = clock_timestamp()
            FROM placed p WHERE r.id = p.id RETURNING r.lane, r.page
        )
        SELECT DISTINCT lane, page FROM moved ORDER BY page, lane
        """,
        ids=list(run_ids),
        batch_id=batch_id,
    )
    return [PageRef(batch_id, Lane(row["lane"]), row["page"]) for row in found]


async def start_page(resources: Resources, page: PageRef) -> WorkflowHandle[PageWorkflow, None]:
    """Start a page's workflow, or find it running. Raises RPCError when Temporal does not answer."""
    settings = resources.settings
    return await resources.temporal.client.start_workflow(
        PageWorkflow.run,
        PageRequest(str(page.batch_id), page.lane, page.page),
        id=page_workflow_id(settings.temporal_task_queue, page.batch_id, page.lane, page.page),
        task_queue=page_queue(settings, page.lane),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        rpc_timeout=resources.temporal.rpc_timeout,
    )


class RunStarter:
    """Collects single runs for 10 ms and starts them as pages, after the answers that made them went out.

    What fails here is left to the sweep, which takes up runs that nobody works at.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._waiting: list[UUID] = []

    def start_soon(self, run_id: UUID) -> None:
        """Start a run that has just been committed."""
        self._waiting.append(run_id)
        if len(self._waiting) == 1:
            self._resources.in_background(self._start_collected())

    async def _start_collected(self) -> None:
        await asyncio.sleep(COLLECT_SECONDS)
        run_ids, self._waiting = self._waiting, []
        try:
            async with self._resources.db.begin() as session:
                pages = await put_into_pages(session, run_ids)
            for page in pages:
                await start_page(self._resources, page)
        except (RPCError, RuntimeError) as error:
            TEMPORAL_ERRORS.labels(call="start_page").inc()
            log.warning("runs wait for the sweep", extra={"action": "page.start", "error": str(error)})
        except Exception as error:
            if not is_unavailable(error):
                UNEXPECTED_ERRORS.labels(where="run_starter").inc()
            log.exception("runs wait for the sweep", extra={"action": "page.start"})
