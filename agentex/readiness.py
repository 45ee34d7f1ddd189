"""Whether the parts that a process needs answer; for /readyz of the API and of the worker."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agentex.database import rows
from agentex.resources import Resources

# A probe that hangs says nothing; orchestrators give up after 1 to 5 s.
PROBE_SECONDS = 1.0


class Check(BaseModel):
    """Whether one part answers, and if not, in which way."""

    ok: bool
    detail: str | None = None


class Readiness(BaseModel):
    """Whether all parts answer."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, Check]

    @property
    def http_status(self) -> int:
        """200, or 503."""
        return 200 if self.status == "ok" else 503


async def readiness(resources: Resources, **others: Check) -> Readiness:
    """Ask Postgres now; Temporal is probed every 5 s in the background. `others` are the process's own."""
    checks = {"postgres": await _postgres(resources), "temporal": _temporal(resources), **others}
    status = "ok" if all(check.ok for check in checks.values()) else "unavailable"
    return Readiness(status=status, checks=checks)


async def _postgres(resources: Resources) -> Check:
    try:
        async with asyncio.timeout(PROBE_SECONDS), resources.db.read() as session:
            await rows(session, "SELECT 1")
    except TimeoutError:
        return Check(ok=False, detail=f"no answer within {PROBE_SECONDS:g} s")
    except (DBAPIError, PoolTimeout, OSError) as error:
        # The class only: a driver's message may name users, hosts and databases.
        return Check(ok=False, detail=type(error).__name__)
    return Check(ok=True)


def _temporal(resources: Resources) -> Check:
    healthy = resources.temporal.healthy
    if healthy is None:
        return Check(ok=False, detail="not asked yet")
    return Check(ok=True) if healthy else Check(ok=False, detail="did not answer the last probe")
