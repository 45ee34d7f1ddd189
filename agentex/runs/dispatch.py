"""What all launches of one process share: windows per agent, and writes in groups.

A group write (grouping.py) takes what has gathered while the one before it was under way, at most 32 items:
6,000 marks in 0.4 s, against 3.2 s one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from agentex.database import DATABASE_ERRORS, is_unavailable, rows
from agentex.executors.base import Lane
from agentex.grouping import Grouping, GroupWriter
from agentex.resources import Resources
from agentex.runs.finish import Outcome, Recorded, record
from agentex.telemetry.metrics import AGENT_REQUESTS_IN_FLIGHT

log = logging.getLogger(__name__)

# By default also the most runs of one agent that a killed worker leaves as outcome_unknown on the deliver
# lane: those marked and not yet recorded.
GROUP_SIZE = 32
# How long a write waits for company. 2,000 runs of one agent: 250 writes rather than 410.
GATHER_SECONDS = 0.002
GROUPING = Grouping(GROUP_SIZE, gather_seconds=GATHER_SECONDS)
RECORD_RETRY_SECONDS = 1.0
# Runs carried for each request that may be open: one is being written while the other one is sent.
RUNS_PER_PLACE = 2


class Marked(Enum):
    """What became of a mark."""

    YES = auto()  # committed: the run may be sent
    CANCELED = auto()  # somebody has asked to cancel it
    LOST = auto()  # the claim has expired, or the run is not its launch's own any more


@dataclass(frozen=True)
class Mark:
    """A run that is about to be sent."""

    run_id: UUID
    token: UUID
    task_created: bool


class Window:
    """What this process has in flight at one agent.

    A run takes a place among `runs`, and one among `marked` while it is marked and not recorded: those are
    what a killed process leaves as outcome_unknown. `requests` bounds what is open at the agent; at most
    half of that opens tasks, so that a marked run finds a place. So the next runs' tasks are opened while
    the writes of those before them are under way.
    """

    def __init__(self, size: int) -> None:
        self.runs = asyncio.Semaphore(RUNS_PER_PLACE * size)
        self.opening = asyncio.Semaphore(-(-size // 2))
        self.marked = asyncio.Semaphore(size)
        self.requests = asyncio.Semaphore(size)
        self.users = 0


class Dispatch:
    """One process's windows and group writers."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        settings = resources.settings
        self._window_sizes = {
            Lane.DELIVER: settings.deliveries_per_agent,
            Lane.ANSWER: settings.answers_per_agent,
        }
        self._windows: dict[tuple[UUID, Lane], Window] = {}
        # Runs that a launch of this process has claimed and not let go of: no other launch settles them.
        self.held: set[UUID] = set()
        # One page's rows are written at a time, so that it is being sent while the next one's are written.
        self.preparing = asyncio.Lock()
        self._in_flight = {lane: AGENT_REQUESTS_IN_FLIGHT.labels(lane=lane) for lane in Lane}
        self.marks: GroupWriter[Mark, Marked] = GroupWriter(self._mark, is_unavailable, GROUPING)
        self.outcomes: GroupWriter[Outcome, Recorded] = GroupWriter(self._record, is_unavailable, GROUPING)

    @asynccontextmanager
    async def window(self, agent_id: UUID, lane: Lane) -> AsyncGenerator[Window]:
        """A place among the runs that this process carries at one agent, and that agent's window."""
        key = (agent_id, lane)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(self._window_sizes[lane])
        window.users += 1
        try:
            async with window.runs:
                with self._in_flight[lane].track_inprogress():
                    yield window
        finally:
            window.users -= 1
            if not window.users:
                del self._windows[key]

    async def _mark(self, marks: Sequence[Mark]) -> list[Marked]:
        async with self._resources.db.single() as session:
            found = await rows(
                session,
                _MARK_SQL,
                ids=[mark.run_id for mark in marks],
                tokens=[mark.token for mark in marks],
                created=[mark.task_created for mark in marks],
            )
        marked = {
            row["id"]: Marked.YES if row["marked"] else Marked.CANCELED if row["cancel"] else Marked.LOST
            for row in found
        }
        return [marked.get(mark.run_id, Marked.LOST) for mark in marks]

    async def _record(self, outcomes: Sequence[Outcome]) -> list[Recorded]:
        """Keeps trying while the database is away: what an agent has done must not be lost.

        A claim that expires meanwhile is settled by others; then nothing is written here.
        """
        db = self._resources.db
        # A delivery is one statement; an answer's messages and a skip's totals belong to its transaction.
        is_one_statement = all(outcome.delivered and outcome.output is None for outcome in outcomes)
        while True:
            try:
                async with db.single() if is_one_statement else db.begin() as session:
                    recorded = await record(session, outcomes)
            except DATABASE_ERRORS as error:
                if not is_unavailable(error):
                    raise
                log.warning("outcomes wait for the database", extra={"action": "run.record"})
                await asyncio.sleep(RECORD_RETRY_SECONDS)
            else:
                return [recorded.get(outcome.run_id, Recorded(mine=False)) for outcome in outcomes]


_MARK_SQL = """
    WITH marks AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[]), CAST(:created AS boolean[]))
            AS m (run_id, token, created)
    ), mine AS (
        SELECT r.id, m.created, r.cancel_requested_at IS NOT NULL AS cancel,
            r.claimed_until > clock_timestamp() AS held
        FROM runs r JOIN marks m ON m.run_id = r.id AND m.token = r.claimed_by
        WHERE r.status = 'launching'
        ORDER BY r.id FOR NO KEY UPDATE OF r
    ), marked AS (
        UPDATE runs r SET sending_at = clock_timestamp(), updated_at = clock_timestamp(),
            task_created_at = CASE WHEN mine.created THEN coalesce(r.task_created_at, clock_timestamp()) END
        FROM mine WHERE r.id = mine.id AND mine.held AND NOT mine.cancel
        RETURNING r.id
    )
    SELECT mine.id, mine.cancel, marked.id IS NOT NULL AS marked FROM mine LEFT JOIN marked USING (id)
"""
