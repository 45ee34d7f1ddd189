"""Intervals: aligned to the Unix epoch, without a zone."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from agentex.cadence.interval import MAX_SECONDS, IntervalCadence
from agentex.errors import InvalidInput

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "after", "expected"),
    [
        (10, NOON, NOON + timedelta(seconds=10)),
        (10, NOON - timedelta(microseconds=1), NOON),
        (10, NOON + timedelta(seconds=3, microseconds=5), NOON + timedelta(seconds=10)),
        (1, NOON, NOON + timedelta(seconds=1)),
        (7, EPOCH, EPOCH + timedelta(seconds=7)),
        (7, EPOCH + timedelta(seconds=7_000_000), EPOCH + timedelta(seconds=7_000_007)),
        (86_400, NOON, datetime(2026, 1, 2, tzinfo=UTC)),
        (604_800, EPOCH, datetime(1970, 1, 8, tzinfo=UTC)),  # weeks begin on Thursdays
        (MAX_SECONDS, EPOCH, datetime(1971, 1, 2, tzinfo=UTC)),
        (10, datetime(1960, 1, 1, tzinfo=UTC), EPOCH),
        (10, NOON.astimezone(timezone(timedelta(hours=-9))), NOON + timedelta(seconds=10)),
    ],
)
def test_next_after(seconds: int, after: datetime, expected: datetime) -> None:
    assert IntervalCadence.parse(seconds).next_after(after) == expected


def test_instants_end_with_9998() -> None:
    cadence = IntervalCadence.parse(10)
    assert cadence.next_after(datetime(9998, 12, 31, 23, 59, 50, tzinfo=UTC)) is None
    assert cadence.next_after(datetime.max.replace(tzinfo=UTC)) is None


def test_between_holds_both_ends_and_the_limit() -> None:
    cadence = IntervalCadence.parse(20)
    end = NOON + timedelta(seconds=40)
    assert cadence.between(NOON, end, limit=9) == [NOON, NOON + timedelta(seconds=20), end]
    assert cadence.between(NOON, end, limit=1) == [NOON]
    assert cadence.between(NOON + timedelta(seconds=1), NOON + timedelta(seconds=19), limit=9) == []


@pytest.mark.parametrize(
    ("instant", "matches"),
    [(NOON, True), (NOON + timedelta(seconds=1), False), (NOON + timedelta(microseconds=1), False)],
)
def test_matches(instant: datetime, matches: bool) -> None:
    assert IntervalCadence.parse(20).matches(instant) is matches


@pytest.mark.parametrize(("seconds", "whole"), [(60, True), (3600, True), (90, False), (1, False)])
def test_whole_minutes(seconds: int, whole: bool) -> None:
    assert IntervalCadence.parse(seconds).whole_minutes is whole


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0"),
        (-5, "-5"),
        (MAX_SECONDS + 1, "31622401"),
        (True, "True"),
        pytest.param(10**5000, "a number of more than 18 digits", id="5001 digits"),
    ],
)
def test_wrong_seconds(seconds: int, shown: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        IntervalCadence.parse(seconds)
    assert (caught.value.field, caught.value.message) == (
        "interval_seconds",
        f"interval_seconds: {shown} is not a whole number from 1 to 31622400 (366 days)",
    )


def test_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="is naive"):
        IntervalCadence.parse(5).next_after(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test
