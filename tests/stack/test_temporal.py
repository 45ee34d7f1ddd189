"""The embedded Temporal, started for real."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
)

from agentex.dev.errors import StackError
from agentex.dev.ports import free_port
from agentex.dev.processes import wait_until
from agentex.dev.temporal import EmbeddedTemporal, temporal_binary
from tests.support.temporal import delete_schedules, fresh_prefix, schedule_ids, start_temporal


@pytest.fixture
def temporal(tmp_path: Path) -> Iterator[EmbeddedTemporal]:
    temporal = start_temporal(tmp_path)
    yield temporal
    temporal.stop()


async def create_schedule(address: str, schedule_id: str) -> Client:
    """Make a Temporal Schedule of every hour; returns the client that did."""
    client = await Client.connect(address)
    action = ScheduleActionStartWorkflow("Nothing", id="nothing", task_queue="nowhere")
    spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(hours=1))])
    await client.create_schedule(schedule_id, Schedule(action=action, spec=spec))
    return client


async def test_started_temporal_takes_a_schedule_at_once(temporal: EmbeddedTemporal) -> None:
    client = await create_schedule(temporal.address, "hourly")
    description = await client.get_schedule_handle("hourly").describe()
    assert description.schedule.spec.intervals == [ScheduleIntervalSpec(every=timedelta(hours=1))]


async def test_killed_temporal_comes_back_empty_on_the_same_port(temporal: EmbeddedTemporal) -> None:
    prefix = fresh_prefix()
    address = temporal.address
    await create_schedule(address, f"{prefix}-hourly")
    temporal.kill()
    assert temporal.process.returncode == -9
    temporal.start()
    client = await create_schedule(address, f"{prefix}-again")
    assert await client.get_schedule_handle(f"{prefix}-again").describe()
    assert await schedule_ids(client, f"{prefix}-hourly") == set()


async def test_schedules_of_one_prefix_are_deleted_out_of_band(temporal: EmbeddedTemporal) -> None:
    mine, theirs = fresh_prefix(), fresh_prefix()
    await create_schedule(temporal.address, f"{theirs}-hourly")
    client = await create_schedule(temporal.address, f"{mine}-hourly")
    await delete_schedules(client, mine)
    assert await schedule_ids(client, mine) == set()


def test_port_in_use_is_told_with_the_log(temporal: EmbeddedTemporal, tmp_path: Path) -> None:
    second = EmbeddedTemporal(temporal.port, log=tmp_path / "second.log")
    with pytest.raises(StackError, match="Temporal ended with exit code 1; see ") as refusal:
        second.start()
    assert "address already in use" in str(refusal.value)


def test_ended_temporal_is_noticed(temporal: EmbeddedTemporal) -> None:
    temporal.kill()
    with pytest.raises(StackError, match="Temporal ended with signal SIGKILL; see "):
        temporal.is_ready()


def test_stopped_temporal_can_be_stopped_again(temporal: EmbeddedTemporal) -> None:
    temporal.stop()
    temporal.stop()
    wait_until(lambda: temporal.process.returncode is not None, "the end", 1)


async def test_temporal_with_a_file_keeps_its_schedules(tmp_path: Path) -> None:
    temporal = EmbeddedTemporal(
        free_port(), log=tmp_path / "temporal.log", db_filename=tmp_path / "temporal.db"
    )
    temporal.start()
    await create_schedule(temporal.address, "hourly")
    temporal.stop()
    temporal.start()
    client = await Client.connect(temporal.address)
    description = await client.get_schedule_handle("hourly").describe()
    temporal.stop()
    assert description.id == "hourly"


def test_binary_is_the_wheels_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert temporal_binary().name == "temporal"
