"""All that a Temporal knows, as the messages that it answers with: to be searched for what must not be there.

dump = await read_all(client)
assert not dump.holds("a marked word")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload, SearchAttributes
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    DescribeScheduleRequest,
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    ListSchedulesRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import Client


@dataclass
class Dump:
    """Listings, descriptions (with pending activities, their heartbeats and failures) and every event."""

    messages: list[Message] = field(default_factory=list[Message])
    workflow_ids: set[str] = field(default_factory=set[str])
    schedule_ids: set[str] = field(default_factory=set[str])

    def holds(self, text: str) -> bool:
        """Whether it stands in any of them; bytes in them are looked at as they are."""
        return any(text.encode() in message.SerializeToString() for message in self.messages)

    @property
    def payloads(self) -> list[Payload]:
        """What clients and workers have encoded; search attributes are Temporal's own."""
        return [part for part in self._parts() if isinstance(part, Payload)]

    @property
    def failures(self) -> list[Failure]:
        """With those that caused others."""
        return [part for part in self._parts() if isinstance(part, Failure)]

    @property
    def events(self) -> list[HistoryEvent]:
        """Of every history."""
        return [part for part in self.messages if isinstance(part, HistoryEvent)]

    def _parts(self) -> Iterator[Message]:
        for message in self.messages:
            yield from _within(message)


async def read_all(client: Client) -> Dump:
    """Everything in the client's namespace. A listing may lag behind by a second."""
    dump, service, namespace = Dump(), client.workflow_service, client.namespace
    schedules = await service.list_schedules(ListSchedulesRequest(namespace=namespace))
    dump.messages.append(schedules)
    for entry in schedules.schedules:
        dump.schedule_ids.add(entry.schedule_id)
        request = DescribeScheduleRequest(namespace=namespace, schedule_id=entry.schedule_id)
        dump.messages.append(await service.describe_schedule(request))
    workflows = await service.list_workflow_executions(ListWorkflowExecutionsRequest(namespace=namespace))
    assert not workflows.next_page_token, "more than a page of workflows"
    dump.messages.append(workflows)
    for found in workflows.executions:
        dump.workflow_ids.add(found.execution.workflow_id)
        about = DescribeWorkflowExecutionRequest(namespace=namespace, execution=found.execution)
        dump.messages.append(await service.describe_workflow_execution(about))
        asked = GetWorkflowExecutionHistoryRequest(namespace=namespace, execution=found.execution)
        history = await service.get_workflow_execution_history(asked)
        assert not history.next_page_token, "more than a page of events"
        dump.messages += history.history.events
    return dump


def _within(message: Message) -> Iterator[Message]:
    """It and every message inside it, but search attributes."""
    if isinstance(message, SearchAttributes):
        return
    yield message
    for descriptor, value in message.ListFields():
        for one in _several(descriptor, value):
            if isinstance(one, Message):
                yield from _within(one)


def _several(descriptor: Any, value: Any) -> Iterator[object]:
    """The values of a field, which is one, a list or a map; protobuf tells no types of it."""
    if isinstance(value, Message):
        yield value
    elif hasattr(value, "values"):
        yield from cast("dict[object, object]", value).values()
    elif descriptor.message_type is not None:
        yield from value
