"""The next instants of a schedule are what its cadence says, remembered or not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentex.schedules import reads
from agentex.schedules.models import Schedule
from agentex.schedules.reads import cadence_of, next_instants

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


def schedule_of(cron: str, *, start: datetime | None = None, end: datetime | None = None) -> Schedule:
    return Schedule(
        agent_id=UUID(int=1),
        name="s",
        account_id="default",
        cron_expression=cron,
        timezone="Europe/Berlin",
        start_at=start,
        end_at=end,
        initial_input={},
        creator_principal={},
        policies={},
        skipped_action_times=[],
        created_at=NOON,
        updated_at=NOON,
    )


@pytest.mark.parametrize("cron", ["* * * * *", "0 9 * * MON", "30 2 29 3 *"])
@settings(max_examples=50, derandomize=True)
@given(
    offsets=st.lists(
        st.tuples(
            st.integers(-(10**6), 10**6), st.one_of(st.none(), st.integers(0, 10**7)), st.integers(1, 12)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_was_asked_before_the_answer_is_the_cadence_s(
    cron: str, offsets: list[tuple[int, int | None, int]]
) -> None:
    """Clocks of several requests do not come in order, and windows begin anywhere."""
    for after_seconds, window, limit in offsets:
        after = NOON + timedelta(seconds=after_seconds)
        start = None if window is None else after + timedelta(seconds=window - 10**6)
        schedule = schedule_of(cron, start=start)
        first = max(after, start) if start else after
        expected = [one for one in cadence_of(schedule).between(first, NEVER, limit=limit + 1) if one > after]
        assert next_instants(schedule, after, limit=limit) == expected[:limit]


def test_a_window_s_end_and_what_is_skipped_are_left_out() -> None:
    schedule = schedule_of("0 * * * *", end=NOON + timedelta(hours=3))
    schedule.skipped_action_times = ["2026-03-10T14:00:00Z"]
    assert next_instants(schedule, NOON) == [NOON + timedelta(hours=1), NOON + timedelta(hours=3)]


def test_what_is_remembered_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "KNOWN_CADENCES", 3)
    for minute in range(20):
        next_instants(schedule_of(f"{minute} 3 * * *"), NOON)
    known: dict[str, object] = getattr(reads, "_known")  # noqa: B009 - private, and only looked at
    assert len(known) <= 3
