"""Ids and keys: the same for the same input, on every machine and in every release."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from agentex import ids
from agentex.errors import NotFound

RUN = UUID("01930000-0000-7000-8000-000000000001")
SCHEDULE = UUID("01930000-0000-7000-8000-000000000002")


def test_ids_of_a_run_are_the_same_in_every_release() -> None:
    assert {
        "task": ids.run_task_id(RUN),
        "event": ids.run_event_id(RUN),
        "input": ids.run_message_id(RUN, 0),
        "answer": ids.run_message_id(RUN, 1),
        "batch": ids.tick_batch_id("tick-run", 2),
    } == {
        "task": UUID("e6992e67-dd52-5a41-a71c-0f57f0fdfc69"),
        "event": UUID("8445e8b9-1029-5ca9-bba9-594d980bc7bd"),
        "input": UUID("18a59474-2580-5756-a84d-c020f92aa7bd"),
        "answer": UUID("94ab134d-8390-56ca-919a-f0899a5352bf"),
        "batch": UUID("965fe68e-b9f5-539a-bd50-0b48e99906e2"),
    }


def test_names_and_keys() -> None:
    clock = UUID("01930000-0000-7000-8000-000000000003")
    assert [
        ids.scheduled_task_name(SCHEDULE, "2026-12-01T09:00:00Z"),
        ids.delivery_key(RUN),
        ids.run_fire_id(RUN),
        ids.key_fire_id("abc"),
        ids.page_workflow_id("agentex", RUN, "deliver", 3),
        ids.clock_schedule_id("agentex", None),
        ids.clock_schedule_id("agentex", clock),
    ] == [
        f"scheduled-run:{SCHEDULE}:2026-12-01T09:00:00Z",
        f"run:{RUN}",
        f"run:{RUN}",
        "key:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        f"agentex:page:{RUN}:deliver:3",
        "agentex:clock:minute",
        f"agentex:clock:{clock}",
    ]


def test_no_new_id_is_below_the_first_of_its_moment_or_above_that_of_a_later_one() -> None:
    before = datetime.now(UTC)
    made = ids.new_id()
    assert ids.first_id_of(before) <= made < ids.first_id_of(before + timedelta(minutes=1))


def test_new_ids_are_version_7_and_ordered_by_time() -> None:
    made = [ids.new_id() for _ in range(1_000)]
    assert {id_.version for id_ in made} == {7}
    assert made == sorted(made)
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        (datetime(2026, 12, 1, 9, 0, tzinfo=UTC), "2026-12-01T09:00:00Z"),
        (datetime(2026, 12, 1, 9, 0, 0, 999_999, tzinfo=UTC), "2026-12-01T09:00:00Z"),
        (datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=2))), "2026-11-30T22:30:00Z"),
        (datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01T00:00:00Z"),
        (datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC), "9998-12-31T23:59:59Z"),
    ],
)
def test_fire_id_is_utc_to_the_second(instant: datetime, expected: str) -> None:
    assert ids.fire_id(instant) == expected


@pytest.mark.parametrize("text", ["", "x", "123", "agent-1", f"{RUN}x", "None"])
def test_what_is_no_id_names_nothing(text: str) -> None:
    with pytest.raises(NotFound) as caught:
        ids.parse_id(text, "run")
    assert caught.value.message == f"run {text!r} not found"


def test_an_id_is_read_back() -> None:
    assert ids.parse_id(str(RUN), "run") == RUN
