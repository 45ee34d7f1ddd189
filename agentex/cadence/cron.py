"""Cron in a time zone: the dialect is told in cron_fields.py, here is which instants it means.

DST (DstRule.DEFAULT), decided by which hours the fields allow and not by how they are spelled, so that equal
expressions have equal instants:

- All 24 hours (`0 * * * *`, `*/15 * * * *`): real time. It fires whenever the local clock shows a matching
  minute: in both passes of a fold, never for the times of a gap.
- Fewer hours (`30 2 * * *`, `0 9-17 * * *`, `0 */2 * * *`): fixed times. Each local time that the fields name
  fires once, at the first instant at which the local clock shows it or a later one: within a gap at the gap's
  end (several there become one), within a fold at the first pass. That holds for a day that a zone leaves out
  (Pacific/Apia, 2011-12-30): its runs become one at the first instant of the next day.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import ClassVar, Self

from agentex.cadence.base import DAY, EPOCH, JSON, LAST_YEAR, Cadence, DstRule
from agentex.cadence.cron_fields import EVERY_HOUR, CronFields, compile_fields, parse_fields
from agentex.cadence.dst import Stretch, require_timezone, stretches

_EPOCH_ORDINAL = EPOCH.date().toordinal()


@dataclass(frozen=True)
class CronCadence(Cadence):
    """The instants at which a local clock shows a minute that all five fields allow; see the file's head."""

    kind: ClassVar[str] = "cron"

    fields: CronFields
    timezone: str
    dst: DstRule = DstRule.DEFAULT

    @classmethod
    def parse(cls, expression: str, timezone: str) -> Self:
        """Check and build; InvalidInput("cron_expression" or "timezone") says what would be right.

        >>> CronCadence.parse("*/30 9 * * MON-FRI", "Europe/Berlin").key
        'cron 0,30 9 * * 1-5 Europe/Berlin default'
        """
        return cls(parse_fields(expression), require_timezone(timezone))

    @property
    def key(self) -> str:
        return f"cron {self.fields.expression} {self.timezone} {self.dst}"

    @property
    def whole_minutes(self) -> bool:
        return True

    @property
    def keeps_real_time(self) -> bool:
        return self.fields.hours == EVERY_HOUR

    def to_json(self) -> dict[str, JSON]:
        return {
            "kind": self.kind,
            "expression": self.fields.expression,
            "timezone": self.timezone,
            "dst": self.dst.value,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, JSON]) -> Self:
        match stored:
            case {
                "kind": cls.kind,
                "expression": str(expression),
                "timezone": str(timezone),
                "dst": str(dst),
            }:
                return cls(compile_fields(expression), require_timezone(timezone), DstRule(dst))
            case _:
                raise ValueError(f"not a stored cron: {dict(stored)!r}")

    def seconds_from(self, first: int) -> Iterator[int]:
        year = _year_of(first // DAY)
        while year <= LAST_YEAR:
            for stretch in stretches(self.timezone, year):
                if stretch.end > first:
                    yield from self._in_stretch(stretch, first)
            # Two days of margin: the first local days of a year may lie in the UTC year before.
            day = self.fields.next_day(_day_of(date(year + 1, 1, 1)) - 2)
            if day is None:
                return
            year = max(year + 1, _year_of(day - 2))

    def _in_stretch(self, stretch: Stretch, first: int) -> Iterator[int]:
        low = stretch.start + stretch.offset
        if not self.keeps_real_time:
            if stretch.reached < low and next(self._local_times(stretch.reached, low), None) is not None:
                if stretch.start >= first:
                    yield stretch.start
                low += 1
            low = max(low, stretch.reached)
        for local in self._local_times(max(low, first + stretch.offset), stretch.end + stretch.offset):
            yield local - stretch.offset

    def _local_times(self, low: int, high: int) -> Iterator[int]:
        """Yield the local times in [low, high) that the fields name, in local seconds since 1970."""
        times = _times_of_day(self.fields.minutes, self.fields.hours)
        day: int | None = low // DAY
        while day * DAY < high and (day := self.fields.next_day(day)) is not None:
            midnight = day * DAY
            for index in range(bisect_left(times, low - midnight), bisect_left(times, high - midnight)):
                yield midnight + times[index]
            day += 1


@lru_cache(maxsize=256)
def _times_of_day(minutes: frozenset[int], hours: frozenset[int]) -> tuple[int, ...]:
    return tuple(hour * 3600 + minute * 60 for hour in sorted(hours) for minute in sorted(minutes))


def _day_of(day: date) -> int:
    return day.toordinal() - _EPOCH_ORDINAL


def _year_of(day: int) -> int:
    return date.fromordinal(_EPOCH_ORDINAL + day).year
