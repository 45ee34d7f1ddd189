"""The sweep's part for a remote authorizer: it is told what has been made and removed."""

from __future__ import annotations

import asyncio
import logging

from agentex.auth.authorize import TellsLater
from agentex.database import DATABASE_ERRORS
from agentex.resources import Resources
from agentex.telemetry.metrics import SWEEP_REPAIRED, UNEXPECTED_ERRORS

log = logging.getLogger(__name__)


class Telling:
    """In the background, one round at a time: an authorizer that hangs must not hold up the sweep."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._round: asyncio.Task[None] | None = None

    def begin_if_due(self) -> None:
        """Begin a round unless one is under way, where the provider has to be told anything."""
        provider = self._resources.authz
        if isinstance(provider, TellsLater) and (self._round is None or self._round.done()):
            self._round = self._resources.in_background(self._tell(provider))

    async def _tell(self, provider: TellsLater) -> None:
        try:
            told = await provider.tell_pending()
            SWEEP_REPAIRED.labels(kind="authorizer_told").inc(told)
        except DATABASE_ERRORS as error:
            log.warning(
                "the authorizer is told when Postgres is back",
                extra={"action": "sweep.tell", "error": type(error).__name__},
            )
        except Exception:
            # Nobody awaits this; a later sweep begins anew.
            UNEXPECTED_ERRORS.labels(where="sweep.tell").inc()
            log.exception("the authorizer could not be told", extra={"action": "sweep.tell"})
