"""The activity of PageWorkflow: a page never takes its own cancellation for a run's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from agentex.database import is_unavailable
from agentex.executors.base import Lane
from agentex.resources import Resources
from agentex.runs.dispatch import Dispatch
from agentex.runs.launch import Launch
from agentex.runs.pages import PageRef
from agentex.runs.workflow import LAUNCH_PAGE, PageRequest, PageResult
from agentex.telemetry.metrics import UNEXPECTED_ERRORS

log = logging.getLogger(__name__)


@contextmanager
def failures_say_little() -> Generator[None]:
    """The activities' edge: Temporal repeats what failed, and keeps of it no more than the error's class.

    An error's words may be those of an input; Temporal's history is no place for them. They are in the log,
    but for a database that is away, which is no news.
    """
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            log.warning("an activity waits for the database", extra={"action": "activity.wait"})
            away = "the database is away"
            raise ApplicationError(away, category=ApplicationErrorCategory.BENIGN) from None
        UNEXPECTED_ERRORS.labels(where="activity").inc()
        log.exception("an activity failed", extra={"action": "activity.fail"})
        raise ApplicationError("the worker's log says more", type=type(error).__name__) from None


class PageActivities:
    """Holds what launches share. `drain` starts nothing new, `cut` ends what is open as outcome_unknown."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._dispatch = Dispatch(resources)
        self._stops: set[asyncio.Event] = set()
        self._launches: set[asyncio.Task[float | None]] = set()
        self._draining = False

    @activity.defn(name=LAUNCH_PAGE)
    async def launch_page(self, request: PageRequest) -> PageResult:
        """Launch what is due of a page."""
        page = PageRef(UUID(request.batch_id), Lane(request.lane), request.page)
        stop = asyncio.Event()
        if self._draining:
            stop.set()
        work = asyncio.create_task(
            Launch(self._resources, self._dispatch, page, stop, activity.heartbeat).run()
        )
        self._stops.add(stop)
        self._launches.add(work)
        try:
            with failures_say_little():
                return PageResult(await self._outlive_cancellation(work, stop))
        finally:
            self._stops.discard(stop)
            self._launches.discard(work)

    def drain(self) -> None:
        """Let what is in flight end; nothing new is started."""
        self._draining = True
        for stop in self._stops:
            stop.set()

    def cut(self) -> None:
        """End every launch now; sent runs become outcome_unknown, the others wait for another worker."""
        for work in self._launches:
            work.cancel()

    async def _outlive_cancellation(
        self, work: asyncio.Task[float | None], stop: asyncio.Event
    ) -> float | None:
        """Await a launch. Temporal wiped, timed out: finish what is in flight; shut down: cut."""
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                if work.done():
                    raise
                details = activity.cancellation_details()
                log.warning(
                    "temporal gave up a page that is in flight",
                    extra={"action": "page.cancel", "details": str(details)},
                )
                if details is not None and details.worker_shutdown:
                    work.cancel()
                stop.set()
