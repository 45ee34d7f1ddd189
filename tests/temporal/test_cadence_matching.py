"""Our cadences against Temporal itself: the same instants, but for what is listed here.

Random crons of our grammar, zones, years and intervals are asked of a real Temporal. Where a clock jumps it
has other instants, of the kinds in cron_kinds.py; each of them is shown once below, so that a Temporal that
has changed is noticed too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import pairwise

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.api.schedule.v1 import IntervalSpec, ScheduleSpec
from temporalio.client import Client

from agentex.cadence.base import EPOCH
from agentex.cadence.cron import CronCadence
from agentex.cadence.interval import MAX_SECONDS, IntervalCadence
from agentex.dev.temporal import EmbeddedTemporal
from agentex.errors import InvalidInput
from tests.temporal.cron_kinds import Kind, Question, changes, changes_near, kind
from tests.temporal.matching import MOST, ScratchSchedule, cron_spec

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
ZONES = sorted(
    set(files("tzdata").joinpath("zones").read_text().split()) - {"Factory", "localtime", "posixrules"}
)
# Temporal's calendar ends with 2100.
YEARS = st.integers(1976, 2099)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
# Temporal's whole week from 1 to 7 has no Sunday; a test below shows it.
TO_SEVEN = re.compile(r"(1|mon)(-7(/1)?|/1)", re.IGNORECASE)


@pytest.fixture(scope="session")
async def scratch(temporal_server: EmbeddedTemporal) -> ScratchSchedule:
    """The Schedule that is asked; it is gone with the server."""
    schedule = ScratchSchedule(await Client.connect(temporal_server.address))
    await schedule.create()
    return schedule


async def ask(scratch: ScratchSchedule, question: Question) -> list[datetime]:
    """Temporal's instants."""
    spec = cron_spec(question.expression, question.zone)
    return await scratch.instants(spec, question.start, question.end)


def ours(question: Question, end: datetime) -> list[datetime]:
    """Our instants in the same window, or a shorter one."""
    cadence = CronCadence.parse(question.expression, question.zone)
    return cadence.between(question.start + timedelta.resolution, end, limit=2 * MOST)


@st.composite
def items(draw: st.DrawFn, low: int, high: int, names: Sequence[str]) -> str:
    """One of `*`, `a`, `a-b`, `*/n`, `a/n`, `a-b/n`, with a name in place of a number now and then."""
    steps = len(names) or high - low + 1
    values = st.integers(low, high)

    def written(value: int) -> str:
        if value - low < len(names) and draw(st.booleans()):
            return draw(st.sampled_from([str.upper, str.lower, str.title]))(names[value - low])
        return str(value)

    first, last = sorted([draw(values), draw(values)])
    base = draw(st.sampled_from(["*", written(first), f"{written(first)}-{written(last)}"]))
    return base + draw(st.one_of(st.just(""), st.integers(1, steps).map("/{}".format)))


def fields(low: int, high: int, names: Sequence[str], *, any_of: int) -> st.SearchStrategy[str]:
    """A field: `*` that often of ten, else up to three items."""
    lists = st.lists(items(low, high, names), min_size=1, max_size=3).map(",".join)
    return st.integers(1, 10).flatmap(lambda n: st.just("*") if n <= any_of else lists)


def is_right(expression: str) -> bool:
    """Whether it is a cron (31 2 is none), and none of which Temporal leaves Sunday out."""
    try:
        CronCadence.parse(expression, "UTC")
    except InvalidInput:
        return False
    return not any(TO_SEVEN.fullmatch(item) for item in expression.rsplit(maxsplit=1)[-1].split(","))


EXPRESSIONS = st.one_of(
    st.sampled_from(["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"]),
    st.tuples(
        fields(0, 59, [], any_of=1),
        # Clocks change at night.
        st.one_of(fields(0, 23, [], any_of=2), st.lists(st.sampled_from("0123"), min_size=1).map(",".join)),
        fields(1, 31, [], any_of=7),
        fields(1, 12, MONTHS, any_of=7),
        fields(0, 7, WEEKDAYS, any_of=6),
    ).map(" ".join),
).filter(is_right)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """A window of four days around a change of a clock, or of some length anywhere in a year."""
    zone, year = draw(st.sampled_from(ZONES)), draw(YEARS)
    jumps = changes(zone, year)
    if jumps and draw(st.booleans()):
        start = draw(st.sampled_from(jumps)).at.replace(second=0) - draw(st.integers(0, 3000)) * MINUTE
        return Question(draw(EXPRESSIONS), zone, start, start + 4 * DAY)
    start = datetime(year, 1, 1, tzinfo=UTC) + draw(st.integers(0, 500_000)) * MINUTE
    return Question(draw(EXPRESSIONS), zone, start, start + draw(st.sampled_from([2, 30, 400])) * DAY)


def first_repeat(instants: list[datetime]) -> datetime | None:
    """The instant at which Temporal stands still, listing it over and over."""
    repeated = (later for earlier, later in pairwise(instants) if later == earlier)
    return next(repeated, None)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(question=questions())
async def test_temporal_has_our_instants_but_for_the_known_kinds(
    scratch: ScratchSchedule, question: Question
) -> None:
    theirs = await ask(scratch, question)
    end = question.end if len(theirs) < MOST else theirs[-1]
    if stuck := first_repeat(theirs):
        end = stuck
        jumps = [c.jump for c in changes_near(question.zone, stuck) if abs(c.at - stuck) <= DAY]
        assert [jump for jump in jumps if abs(jump) >= timedelta(hours=2)] != [], "stands still for no reason"
    expected = set(ours(question, end))
    differences = expected ^ {instant for instant in theirs if instant <= end}
    new = {instant for instant in differences if kind(question, instant, ours=instant in expected) is None}
    assert new == set()


# Days of the past, whose rules no new tzdata changes. Expected are the UTC times that one side has alone.
SHOWN: list[tuple[str, str, str, dict[str, Kind]]] = [
    ("30 2 * * *", "Europe/Berlin", "2024-03-31", {"01:00": Kind.GAP_LEFT_OUT}),
    ("15 * * * *", "Australia/Lord_Howe", "2024-10-05", {"15:45": Kind.GAP_SHIFTED}),
    # A Sunday, which has no midnight: Temporal fires for Saturday, and does not for Sunday.
    ("0 12 * * SAT", "Atlantic/Azores", "2024-03-31", {"12:00": Kind.GAP_AT_MIDNIGHT}),
    ("0 12 * * SUN", "Atlantic/Azores", "2024-03-31", {"12:00": Kind.GAP_AT_MIDNIGHT}),
    # In both passes, and in the second one instead of the first.
    ("0 0 * * *", "America/Havana", "2023-11-05", {"05:00": Kind.FOLD_AGAIN}),
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2024-10-27",
        {"00:30": Kind.FOLD_LOST, "01:30": Kind.FOLD_AGAIN},
    ),
    # Of four instants in the two hours of a fold Temporal has two.
    (
        "*/30 * * * *",
        "Europe/Berlin",
        "2024-10-27",
        {"00:30": Kind.FOLD_LOST, "01:00": Kind.FOLD_LOST},
    ),
    # 01:30 stands before the fold; Temporal fires at 02:30 too.
    ("30 1 * * *", "Europe/Berlin", "2024-10-26T23:59", {"00:30": Kind.FOLD_OTHER_TIME}),
    (
        "*/15 0-3 * * *",
        "Africa/Casablanca",
        "2024-03-10",
        {
            "01:15": Kind.FOLD_LOST,
            "01:30": Kind.FOLD_LOST,
            "01:45": Kind.FOLD_LOST,
            "02:15": Kind.FOLD_AGAIN,
            "03:00": Kind.AFTER_FOLD_LOST,
            "03:15": Kind.AFTER_FOLD_LOST,
        },
    ),
]


@pytest.mark.parametrize(("expression", "zone", "day", "expected"), SHOWN)
async def test_a_known_difference_is_still_there(
    scratch: ScratchSchedule, expression: str, zone: str, day: str, expected: dict[str, Kind]
) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    question = Question(expression, zone, start - MINUTE, start + DAY)
    theirs, own = set(await ask(scratch, question)), set(ours(question, question.end))
    found = {f"{t:%H:%M}": kind(question, t, ours=t in own) for t in sorted(theirs ^ own)}
    assert found == expected


def test_every_kind_is_shown() -> None:
    assert {kind for *_, expected in SHOWN for kind in expected.values()} == set(Kind)


async def test_temporal_stands_still_at_a_day_that_a_zone_left_out(scratch: ScratchSchedule) -> None:
    start = datetime(2011, 12, 27, tzinfo=UTC)
    question = Question("30 2 * * *", "Pacific/Apia", start, start + 9 * DAY)
    theirs = await ask(scratch, question)
    assert (len(theirs), first_repeat(theirs)) == (MOST, datetime(2011, 12, 29, 12, 30, tzinfo=UTC))
    # One a day; that of 30 December is at its end.
    assert len(ours(question, question.end)) == 10


@pytest.mark.parametrize("weekdays", ["1-7", "MON-7", "1/1"])
async def test_temporal_s_week_from_1_to_7_has_no_sunday(scratch: ScratchSchedule, weekdays: str) -> None:
    start = datetime(2026, 2, 28, 1, tzinfo=UTC)
    question = Question(f"0 0 * * {weekdays}", "UTC", start, start + 8 * DAY)
    missing = set(ours(question, question.end)) - set(await ask(scratch, question))
    assert missing == {datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 8, tzinfo=UTC)}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seconds=st.one_of(st.integers(1, 120), st.integers(1, 60).map((60).__mul__), st.integers(1, MAX_SECONDS)),
    second=st.integers(0, 4_000_000_000),
    count=st.integers(0, 50),
)
async def test_temporal_has_our_intervals(
    scratch: ScratchSchedule, seconds: int, second: int, count: int
) -> None:
    start = EPOCH + timedelta(seconds=second)
    end = start + count * timedelta(seconds=seconds)
    spec = ScheduleSpec(interval=[IntervalSpec(interval=Duration(seconds=seconds))])
    own = IntervalCadence.parse(seconds).between(start + timedelta.resolution, end, limit=MOST)
    assert await scratch.instants(spec, start, end) == own
