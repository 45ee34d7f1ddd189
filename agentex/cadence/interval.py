"""Every so many seconds, aligned to the Unix epoch: all schedules of one interval share their instants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Self

from agentex.cadence.base import DAY, JSON, Cadence
from agentex.errors import InvalidInput

MAX_SECONDS = 366 * DAY
"""A leap year. What is rarer is a date, and a date is cron's."""


@dataclass(frozen=True)
class IntervalCadence(Cadence):
    """The instants whose Unix seconds are a multiple of `seconds`; it has no zone and no DST."""

    kind: ClassVar[str] = "interval"

    seconds: int

    @classmethod
    def parse(cls, seconds: int) -> Self:
        """Check and build; InvalidInput("interval_seconds") unless 1 <= seconds <= 366 days."""
        if isinstance(seconds, bool) or not 1 <= seconds <= MAX_SECONDS:
            shown = repr(seconds) if abs(seconds) < 10**18 else "a number of more than 18 digits"
            raise InvalidInput(
                "interval_seconds", f"{shown} is not a whole number from 1 to {MAX_SECONDS} (366 days)"
            )
        return cls(seconds)

    @property
    def key(self) -> str:
        return f"interval {self.seconds}"

    @property
    def whole_minutes(self) -> bool:
        return self.seconds % 60 == 0

    def to_json(self) -> dict[str, JSON]:
        return {"kind": self.kind, "seconds": self.seconds}

    @classmethod
    def from_json(cls, stored: Mapping[str, JSON]) -> Self:
        match stored:
            case {"kind": cls.kind, "seconds": int(seconds)}:
                return cls.parse(seconds)
            case _:
                raise ValueError(f"not a stored interval: {dict(stored)!r}")

    def seconds_from(self, first: int) -> Iterator[int]:
        return count(-(-first // self.seconds) * self.seconds, self.seconds)
