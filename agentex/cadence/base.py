"""What every kind of cadence answers: which instants exist.

A cadence is a pure value. Instants are whole seconds; they go in as any aware datetime and come out as
aware UTC. Inside this folder they are integers, Unix seconds: a tick asks 50 cadences and integers are cheap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile
from typing import ClassVar, Self, TypeAlias

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400
# No schedule has business outside; within, no offset can carry a local date out of what `date` can hold.
FIRST_SECOND = 0
LAST_YEAR = 9998
LAST_SECOND = (datetime(LAST_YEAR, 12, 31, 23, 59, 59, tzinfo=UTC) - EPOCH) // timedelta(seconds=1)

_SECOND = timedelta(seconds=1)


class DstRule(StrEnum):
    """What a cadence of local times does where a zone's clock jumps."""

    # Fixed times once a day (gap: at its end, fold: the first); a cadence of all 24 hours keeps real time.
    DEFAULT = "default"


class Cadence(ABC):
    """One kind of "when". Instants exist from 1970 to the end of 9998 and nowhere else."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def key(self) -> str:
        """What clocks are shared by: the same however the cadence was written; under 500 characters."""

    @property
    @abstractmethod
    def whole_minutes(self) -> bool:
        """Whether every instant is at second 0 of a UTC minute, so that the minute's tick serves it."""

    @abstractmethod
    def to_json(self) -> dict[str, JSON]:
        """What the clocks table stores; `registry.from_json` reads it back to an equal cadence."""

    @classmethod
    @abstractmethod
    def from_json(cls, stored: Mapping[str, JSON]) -> Self:
        """Read what `to_json` wrote. ValueError or InvalidInput when it is something else."""

    @abstractmethod
    def seconds_from(self, first: int) -> Iterator[int]:
        """Every instant >= first (itself >= FIRST_SECOND), as Unix seconds, ascending, each once."""

    def next_after(self, instant: datetime) -> datetime | None:
        """The first instant strictly after `instant`; None past the year 9998. ValueError for a naive one."""
        first = max((_aware(instant) - EPOCH) // _SECOND + 1, FIRST_SECOND)
        second = next(self.seconds_from(first), LAST_SECOND + 1) if first <= LAST_SECOND else LAST_SECOND + 1
        return _from_seconds(second) if second <= LAST_SECOND else None

    def between(self, start: datetime, end: datetime, *, limit: int) -> list[datetime]:
        """The instants with start <= t <= end, oldest first, at most `limit`. ValueError for naive ones."""
        first = max(-((EPOCH - _aware(start)) // _SECOND), FIRST_SECOND)
        last = min((_aware(end) - EPOCH) // _SECOND, LAST_SECOND)
        seconds = takewhile(last.__ge__, self.seconds_from(first) if first <= last else ())
        return [_from_seconds(second) for second in islice(seconds, limit)]

    def matches(self, instant: datetime) -> bool:
        """Whether `instant` is one of this cadence's. ValueError for a naive one."""
        return self.between(instant, instant, limit=1) != []


def _aware(instant: datetime) -> datetime:
    if instant.utcoffset() is None:
        raise ValueError(f"{instant.isoformat()} is naive; instants are aware datetimes")
    return instant


def _from_seconds(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)
