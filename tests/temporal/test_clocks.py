"""Clocks in Temporal: made, kept, deleted and made again."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import ScheduleActionStartWorkflow, ScheduleIntervalSpec, ScheduleOverlapPolicy

from agentex.clocks.service import OwnClock
from agentex.clocks.temporal import Synced, ensure, list_ids, sync
from agentex.ids import clock_schedule_id, new_id
from agentex.resources import Resources
from agentex.temporal import Temporal
from tests.support.temporal import delete_schedules, schedule_ids
from tests.temporal.workers import eventually


def names(resources: Resources, *clocks: OwnClock) -> set[str]:
    """The minute's Schedule and these clocks' own."""
    prefix = resources.settings.temporal_task_queue
    return {clock_schedule_id(prefix, clock.id if clock else None) for clock in (None, *clocks)}


async def synced(resources: Resources, *clocks: OwnClock) -> Synced:
    listed = await list_ids(resources.temporal, resources.settings)
    return await sync(resources.temporal, resources.settings, listed, clocks)


async def listed(resources: Resources, expected: set[str]) -> None:
    """Return when Temporal lists just these; its listing lags."""

    async def same() -> bool:
        prefix = resources.settings.temporal_task_queue
        return await schedule_ids(resources.temporal.client, prefix) == expected

    await eventually(same)


async def test_sync_makes_what_lacks_keeps_the_rest_and_deletes_what_is_retired(resources: Resources) -> None:
    seven, ninety = OwnClock(new_id(), 7), OwnClock(new_id(), 90)
    first = await synced(resources, seven)
    await listed(resources, names(resources, seven))
    second = await synced(resources, seven, ninety)
    await listed(resources, names(resources, seven, ninety))
    third = await synced(resources, ninety)
    await listed(resources, names(resources, ninety))
    assert [first, second, third, await synced(resources, ninety)] == [
        Synced([seven.id], created=2, deleted=0),
        Synced([seven.id, ninety.id], created=1, deleted=0),
        Synced([ninety.id], created=0, deleted=1),
        Synced([ninety.id], created=0, deleted=0),
    ]


async def test_schedules_deleted_out_of_band_are_made_again(resources: Resources) -> None:
    seven = OwnClock(new_id(), 7)
    await synced(resources, seven)
    await listed(resources, names(resources, seven))
    await delete_schedules(resources.temporal.client, resources.settings.temporal_task_queue)
    await listed(resources, set())
    assert await synced(resources, seven) == Synced([seven.id], created=2, deleted=0)
    await listed(resources, names(resources, seven))


async def test_another_stack_s_schedules_are_left_alone(resources: Resources) -> None:
    other = resources.settings.model_copy(
        update={"temporal_task_queue": f"{resources.settings.temporal_task_queue}-other"}
    )
    await ensure(resources.temporal, other, None)
    expected = names(resources) | {clock_schedule_id(other.temporal_task_queue, None)}
    await synced(resources)
    await listed(resources, expected)
    assert await synced(resources) == Synced([], created=0, deleted=0)
    await listed(resources, expected)


async def test_a_schedule_that_is_there_is_no_error_and_not_made_anew(resources: Resources) -> None:
    seven = OwnClock(new_id(), 7)
    made = [await ensure(resources.temporal, resources.settings, seven) for _ in range(2)]
    assert made == [True, False]


async def test_what_a_clock_s_schedule_says(resources: Resources) -> None:
    seven = OwnClock(new_id(), 7)
    await ensure(resources.temporal, resources.settings, seven)
    prefix = resources.settings.temporal_task_queue
    handle = resources.temporal.client.get_schedule_handle(clock_schedule_id(prefix, seven.id))
    schedule = (await handle.describe()).schedule
    assert isinstance(schedule.action, ScheduleActionStartWorkflow)
    assert (
        schedule.spec.intervals,
        schedule.policy.overlap,
        schedule.policy.catchup_window,
        schedule.action.workflow,
        schedule.action.task_queue,
        schedule.action.run_timeout,
    ) == (
        [ScheduleIntervalSpec(every=timedelta(seconds=7))],
        ScheduleOverlapPolicy.ALLOW_ALL,
        timedelta(minutes=1),
        "TickWorkflow",
        f"{prefix}-ticks",
        timedelta(seconds=60),
    )


async def test_a_probe_tells_whether_temporal_answers(resources: Resources) -> None:
    nowhere = resources.settings.model_copy(update={"temporal_address": "127.0.0.1:9"})
    away = await Temporal.open(nowhere)
    assert [await resources.temporal.probe(), await away.probe(), away.healthy] == [True, False, False]
