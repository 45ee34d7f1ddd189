"""Which instants Temporal itself has for a spec: a scratch Schedule that is asked and never rings."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

from temporalio.api.common.v1 import WorkflowType
from temporalio.api.schedule.v1 import Schedule, ScheduleAction, ScheduleSpec, ScheduleState
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import NewWorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CreateScheduleRequest,
    ListScheduleMatchingTimesRequest,
    UpdateScheduleRequest,
)
from temporalio.client import Client

# As many as Temporal gives in one answer.
MOST = 1000


class ScratchSchedule:
    """One Schedule whose spec is written over for each question: a new one each time takes twice as long."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._id = f"scratch-{uuid4()}"

    async def create(self) -> None:
        """Make it, without an instant."""
        await self._client.workflow_service.create_schedule(
            CreateScheduleRequest(
                namespace=self._client.namespace,
                schedule_id=self._id,
                schedule=_paused(ScheduleSpec()),
                request_id=str(uuid4()),
            )
        )

    async def instants(self, spec: ScheduleSpec, start: datetime, end: datetime) -> list[datetime]:
        """The first thousand instants with start < t <= end, as Temporal lists them."""
        service = self._client.workflow_service
        await service.update_schedule(
            UpdateScheduleRequest(
                namespace=self._client.namespace,
                schedule_id=self._id,
                schedule=_paused(spec),
                request_id=str(uuid4()),
            )
        )
        request = ListScheduleMatchingTimesRequest(namespace=self._client.namespace, schedule_id=self._id)
        request.start_time.FromDatetime(start)
        request.end_time.FromDatetime(end)
        answer = await service.list_schedule_matching_times(request)
        return [instant.ToDatetime(tzinfo=UTC) for instant in answer.start_time]


def cron_spec(expression: str, zone: str) -> ScheduleSpec:
    """A cron as a user writes it; the zone's rules are zoneinfo's, whatever the server has."""
    return ScheduleSpec(cron_string=[expression], timezone_name=zone, timezone_data=_rules(zone))


def _rules(zone: str) -> bytes:
    """What zoneinfo reads: the system's file, or that of the tzdata package."""
    for folder in zoneinfo.TZPATH:
        if (path := Path(folder, zone)).is_file():
            return path.read_bytes()
    return files("tzdata").joinpath("zoneinfo", *zone.split("/")).read_bytes()


def _paused(spec: ScheduleSpec) -> Schedule:
    starts = NewWorkflowExecutionInfo(
        workflow_id="never",
        workflow_type=WorkflowType(name="Never"),
        task_queue=TaskQueue(name="nobody"),
    )
    return Schedule(spec=spec, action=ScheduleAction(start_workflow=starts), state=ScheduleState(paused=True))
