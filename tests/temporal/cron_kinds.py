"""The known differences between Temporal's crons and ours, and telling which of them one is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agentex.cadence.cron import CronCadence
from agentex.cadence.cron_fields import CronFields

NONE = timedelta(0)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
# No zone has jumped twice within this.
STEP = timedelta(hours=12)


class Kind(StrEnum):
    """How Temporal differs, always near a jump of the zone's clock."""

    GAP_LEFT_OUT = "we fire at the gap's end, Temporal does not fire"
    GAP_SHIFTED = "Temporal fires within the hour after a gap, at a local time that the fields do not name"
    GAP_AT_MIDNIGHT = "on a day that begins with a gap Temporal goes by the weekday of the day before"
    FOLD_AGAIN = "Temporal fires in the second pass: as well as in the first, or instead"
    FOLD_LOST = "we fire within a fold, Temporal does not"
    FOLD_OTHER_TIME = "Temporal fires around a fold at a local time that the fields do not name"
    AFTER_FOLD_LOST = "we fire within the hour after a fold, Temporal does not"


class Change(NamedTuple):
    """A jump of a zone's clock: forward leaves a gap, backward a fold."""

    at: datetime
    jump: timedelta


class Question(NamedTuple):
    """An expression in a zone, and the window that is asked for: start < t <= end."""

    expression: str
    zone: str
    start: datetime
    end: datetime


@lru_cache(maxsize=1024)
def changes(zone: str, year: int) -> tuple[Change, ...]:
    """All changes of a zone's clock in a UTC year, by asking zoneinfo."""
    found: list[Change] = []
    at, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    while at < end:
        if (before := _offset(zone, at)) != _offset(zone, at + STEP):
            low, high = at, at + STEP
            while high - low > SECOND:
                middle = low + (high - low) // SECOND // 2 * SECOND
                low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
            found.append(Change(high, _offset(zone, high) - before))
        at += STEP
    return tuple(found)


def changes_near(zone: str, instant: datetime) -> list[Change]:
    """The changes of the instant's year and of those beside it."""
    return [change for year in range(instant.year - 1, instant.year + 2) for change in changes(zone, year)]


def kind(question: Question, instant: datetime, *, ours: bool) -> Kind | None:
    """Which of the known differences this instant is, ours or else Temporal's; None for a new one."""
    zone = ZoneInfo(question.zone)
    fields = CronCadence.parse(question.expression, question.zone).fields
    named = _names(fields, instant.astimezone(zone))
    for change in changes_near(question.zone, instant):
        judge = _after_gap if change.jump > NONE else _at_fold
        if found := judge(change, instant, ours, named):
            return found
        if _begins_with_gap(change, instant, zone) and fields.weekdays != frozenset(range(7)):
            return Kind.GAP_AT_MIDNIGHT
    return None


def _after_gap(change: Change, instant: datetime, ours: bool, named: bool) -> Kind | None:
    since = instant - change.at
    if ours and since == NONE:
        return Kind.GAP_LEFT_OUT
    if not ours and not named and NONE <= since < HOUR:
        return Kind.GAP_SHIFTED
    return None


def _at_fold(change: Change, instant: datetime, ours: bool, named: bool) -> Kind | None:
    since, length = instant - change.at, -change.jump
    if not -length <= since < length + HOUR:
        return None
    if ours:
        return Kind.FOLD_LOST if since < length else Kind.AFTER_FOLD_LOST
    if not named:
        return Kind.FOLD_OTHER_TIME
    return Kind.FOLD_AGAIN if NONE <= since < length else None


def _begins_with_gap(change: Change, instant: datetime, zone: ZoneInfo) -> bool:
    before, after = (at.astimezone(zone) for at in (change.at - SECOND, change.at))
    return change.jump > NONE and before.date() < after.date() == instant.astimezone(zone).date()


def _names(fields: CronFields, local: datetime) -> bool:
    return (
        local.minute in fields.minutes
        and local.hour in fields.hours
        and local.day in fields.days
        and local.month in fields.months
        and local.isoweekday() % 7 in fields.weekdays
    )


def _offset(zone: str, instant: datetime) -> timedelta:
    found = instant.astimezone(ZoneInfo(zone)).utcoffset()
    assert found is not None
    return found
