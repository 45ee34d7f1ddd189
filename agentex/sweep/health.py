"""When the agents' health is looked at: in the background of the sweep, which it must not hold up."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic

from agentex.agents.health import check_health
from agentex.database import DATABASE_ERRORS, is_unavailable
from agentex.resources import Resources
from agentex.telemetry.metrics import UNEXPECTED_ERRORS

log = logging.getLogger(__name__)


class HealthRounds:
    """Begins a round every AGENTEX_AGENT_HEALTH_INTERVAL_SECONDS, never two at once.

    The first begins an interval after this process, which leaves agents that start with it the time to.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._interval_seconds = resources.settings.agent_health_interval_seconds
        self._next_at = monotonic() + self._interval_seconds
        self._round: asyncio.Task[None] | None = None

    def begin_if_due(self) -> None:
        """Let a round begin if it is time for one; returns at once."""
        is_on = self._interval_seconds > 0
        is_open = self._round is not None and not self._round.done()
        if is_on and not is_open and monotonic() >= self._next_at:
            self._next_at = monotonic() + self._interval_seconds
            self._round = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Give up the round that is open: another process asks again."""
        if self._round is not None:
            self._round.cancel()
            with suppress(asyncio.CancelledError):
                await self._round

    async def _run(self) -> None:
        try:
            await check_health(self._resources)
        except DATABASE_ERRORS as error:
            if is_unavailable(error):
                log.warning("the agents' health waits for Postgres", extra={"action": "sweep.health"})
            else:
                self._note(error)
        except Exception as error:  # noqa: BLE001 - nobody awaits this: logged, counted, asked again
            self._note(error)

    def _note(self, error: Exception) -> None:
        UNEXPECTED_ERRORS.labels(where="sweep.health").inc()
        log.error(
            "the agents' health could not be looked at", extra={"action": "sweep.health"}, exc_info=error
        )
