"""Random crons over random clock changes, against an oracle that walks UTC minute by minute.

The oracle shares nothing with the code: fields are drawn as sets and spelled here, local times come from
zoneinfo one by one, and a fixed time's instant is found by looking for it.
"""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from agentex.cadence.cron import CronCadence

MINUTE = timedelta(minutes=1)
# The oracle begins this long before the instants it is asked for: longer than any fold.
LEAD = timedelta(days=2)

CHANGES = [
    ("UTC", datetime(2028, 2, 29, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(1985, 12, 31, 18, 30, tzinfo=UTC)),  # +5:30 to +5:45
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Europe/Dublin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2090, 11, 5, 6, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 2, 18, 2, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 3, 28, 22, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2024, 10, 31, 21, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2024, 3, 10, 2, tzinfo=UTC)),
    ("America/Caracas", datetime(2007, 12, 9, 7, tzinfo=UTC)),  # half an hour back for good
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),
    ("America/St_Johns", datetime(2010, 11, 7, 2, 31, tzinfo=UTC)),  # 00:01 back to the day before
    ("America/St_Johns", datetime(2010, 3, 14, 3, 31, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Pacific/Kwajalein", datetime(1993, 8, 21, 12, tzinfo=UTC)),
    ("Pacific/Chatham", datetime(2026, 9, 26, 14, tzinfo=UTC)),
    ("Asia/Gaza", datetime(2011, 8, 1, tzinfo=UTC)),  # two changes within weeks
]


class Drawn(NamedTuple):
    """The values of the five fields."""

    minutes: set[int]
    hours: set[int]
    days: set[int]
    months: set[int]
    weekdays: set[int]

    @property
    def expression(self) -> str:
        return " ".join(",".join(map(str, sorted(values))) for values in self)

    def cadence(self, zone: str) -> CronCadence:
        """Build it as if stored: 60 minutes, written one by one, are more than a user may write."""
        fields = {"expression": self.expression, "timezone": zone}
        return CronCadence.from_json({"kind": "cron", "dst": "default", **fields})

    def allow(self, local: datetime) -> bool:
        return (
            local.minute in self.minutes
            and local.hour in self.hours
            and local.day in self.days
            and local.month in self.months
            and (local.weekday() + 1) % 7 in self.weekdays
        )


class Clock(NamedTuple):
    """A zone's wall clock, minute by minute."""

    instants: list[datetime]
    shown: list[datetime]
    latest: list[datetime]


def subset(low: int, high: int) -> st.SearchStrategy[set[int]]:
    values = st.integers(low, high)
    few = st.sets(values, min_size=1, max_size=4)
    return st.one_of(st.just(set(range(low, high + 1))), few, st.sets(values, min_size=(high - low) // 2))


FIELDS = st.builds(
    Drawn,
    subset(0, 59),
    # Clocks change at night.
    st.one_of(subset(0, 23), st.sets(st.sampled_from([23, 0, 1, 2, 3]), min_size=1)),
    st.one_of(st.just(set(range(1, 32))), st.sets(st.integers(1, 28), min_size=8)),
    st.just(set(range(1, 13))),
    st.one_of(st.just(set(range(7))), st.sets(st.integers(0, 6), min_size=1)),
)


@lru_cache(maxsize=64)
def clock(zone: str, around: datetime) -> Clock:
    start = around - timedelta(days=2) - LEAD
    instants = [start + MINUTE * n for n in range(7 * 24 * 60)]
    shown = [instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) for instant in instants]
    return Clock(instants, shown, list(accumulate(shown, max)))


def expected(fields: Drawn, wall: Clock, start: datetime, end: datetime) -> list[datetime]:
    """Every hour: the minutes at which the clock shows an allowed time. Else: each allowed time, once."""
    if len(fields.hours) == 24:
        found = {u for u, local in zip(wall.instants, wall.shown, strict=True) if fields.allow(local)}
    else:
        minutes = int((wall.latest[-1] - wall.shown[0]) / MINUTE)
        times = [wall.shown[0] + MINUTE * n for n in range(minutes)]
        found = {wall.instants[bisect_left(wall.latest, t)] for t in times if fields.allow(t)}
    return sorted(instant for instant in found if start <= instant <= end)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CHANGES), FIELDS, st.integers(-36 * 60, 24 * 60), st.integers(0, 36 * 60))
def test_between_is_what_the_wall_clock_says(
    change: tuple[str, datetime], fields: Drawn, offset: int, length: int
) -> None:
    zone, around = change
    start = around + MINUTE * offset
    end = start + MINUTE * length
    cadence = fields.cadence(zone)
    found = cadence.between(start, end, limit=10_000)
    assert found == expected(fields, clock(zone, around), start, end)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CHANGES), FIELDS, st.integers(-36 * 60, 24 * 60))
def test_between_is_next_after_repeated(change: tuple[str, datetime], fields: Drawn, offset: int) -> None:
    zone, around = change
    start = around + MINUTE * offset
    cadence = fields.cadence(zone)
    end = start + timedelta(days=3)
    repeated: list[datetime] = []
    at = cadence.next_after(start - MINUTE / 2)
    while at is not None and at <= end and len(repeated) < 200:
        repeated.append(at)
        at = cadence.next_after(at)
    assert cadence.between(start, end, limit=200) == repeated


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CHANGES), FIELDS, st.integers(-36 * 60, 24 * 60))
def test_matches_is_membership(change: tuple[str, datetime], fields: Drawn, offset: int) -> None:
    zone, around = change
    instant = around + MINUTE * offset
    cadence = fields.cadence(zone)
    members = expected(fields, clock(zone, around), instant, instant)
    assert cadence.matches(instant) is (instant in members)


@settings(max_examples=200, deadline=None)
@given(FIELDS)
def test_json_reads_back_and_the_key_is_bounded(fields: Drawn) -> None:
    cadence = fields.cadence("UTC")
    assert CronCadence.from_json(cadence.to_json()) == cadence
    assert len(cadence.key) < 500
