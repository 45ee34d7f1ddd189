"""Every kind of cadence: a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from agentex.cadence.base import JSON, Cadence
from agentex.cadence.cron import CronCadence
from agentex.cadence.dst import require_timezone
from agentex.cadence.interval import IntervalCadence
from agentex.errors import InvalidInput

KINDS: Mapping[str, type[Cadence]] = {
    CronCadence.kind: CronCadence,
    IntervalCadence.kind: IntervalCadence,
}


def parse(*, cron_expression: str | None, interval_seconds: int | None, timezone: str) -> Cadence:
    """Build the one cadence that a schedule's fields name.

    InvalidInput names the field at fault; both or neither given is a fault of cron_expression. The zone is
    checked for an interval too: the schedule keeps it, and a later change to cron would stumble over it.
    """
    if cron_expression is not None and interval_seconds is not None:
        raise InvalidInput("cron_expression", "give cron_expression or interval_seconds, not both")
    if cron_expression is not None:
        return CronCadence.parse(cron_expression, timezone)
    if interval_seconds is None:
        raise InvalidInput("cron_expression", "give one of cron_expression and interval_seconds")
    require_timezone(timezone)
    return IntervalCadence.parse(interval_seconds)


def from_json(stored: Mapping[str, JSON]) -> Cadence:
    """Read what `Cadence.to_json` wrote. ValueError for an unknown kind."""
    kind = stored.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"cadence kind {kind!r} is none of {sorted(KINDS)}")
    return KINDS[kind].from_json(stored)
