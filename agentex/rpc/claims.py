"""The claim on an open answer: renewed as long as this process reads it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from agentex.database import DATABASE_ERRORS, is_unavailable
from agentex.resources import Resources
from agentex.rpc.sends import given_up_key, renew

log = logging.getLogger(__name__)


class Claim:
    """Held from its making until `drop`. A timer, not a task: most answers end before the first renewal.

    given_up: called when the answer's task is given up. Told by a notice; one that went past is made good by
    the next renewal.
    """

    def __init__(
        self, resources: Resources, send_id: UUID, task_id: UUID, given_up: Callable[[], None]
    ) -> None:
        self._resources = resources
        self._send_id = send_id
        self._seconds = resources.settings.claim_seconds
        self._given_up = given_up
        self._end_notices = resources.notices.call_at(given_up_key(task_id), given_up)
        self._timer = self._start_timer()

    def drop(self) -> None:
        """The answer has ended."""
        self._timer.cancel()
        self._end_notices()

    def _start_timer(self) -> asyncio.TimerHandle:
        # Two renewals may fail before the claim is over.
        return asyncio.get_running_loop().call_later(self._seconds / 3, self._on_time)

    def _on_time(self) -> None:
        self._timer = self._start_timer()
        self._resources.in_background(self._renew())

    async def _renew(self) -> None:
        try:
            if not await renew(self._resources.db, self._send_id, claim_seconds=self._seconds):
                self._given_up()
        except DATABASE_ERRORS as error:
            if not is_unavailable(error):
                raise
            log.warning("a claim waits for the database", extra={"action": "rpc.claim"})
