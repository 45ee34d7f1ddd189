"""Snapshots: a task with all that hangs on it, as it is exported and put back."""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from agentex.agents.models import AgentRead
from agentex.events.models import EventRead
from agentex.instants import Instant
from agentex.messages.models import MessageRead
from agentex.tasks.models import TaskRead

# A bigint of Postgres.
_LARGEST_SEQUENCE_ID = 2**63 - 1


class MessageEntry(MessageRead):
    """A message: all its columns but the account."""

    created_at: Instant
    updated_at: Instant


class EventEntry(EventRead):
    """An event: all its columns but the account."""

    sequence_id: Annotated[int, Field(ge=1, le=_LARGEST_SEQUENCE_ID)]
    created_at: Instant
    delivery_key: str = Field(
        min_length=1, max_length=512, description="What keeps it one, however often it is delivered"
    )


class Snapshot(BaseModel):
    """A task and all that hangs on it. `task` and `agents` are for readers: they are not put back."""

    task_id: UUID
    task: TaskRead | None = None
    agents: list[AgentRead] | None = None
    messages: list[MessageEntry] = Field(default=[], description="Oldest first")
    events: list[EventEntry] = Field(
        default=[], description="Oldest first; those of a cleaned task are empty"
    )


class SnapshotRestore(Snapshot):
    """A snapshot, or a piece of one, that is put back."""

    more: bool = Field(
        default=False,
        description="Whether further pieces follow: the task stays cleaned until one comes without it",
    )

    @model_validator(mode="after")
    def _has_parts(self) -> Self:
        if self.model_fields_set <= {"task_id", "task", "agents", "more"}:
            raise ValueError("has none of messages, events: give what the export had, empty lists too")
        return self


class TaskClean(BaseModel):
    """How idle a task must be for its content to go."""

    force: bool = Field(default=False, description="Do not ask how long it has been idle; all else is asked")
    idle_days: int = Field(
        default=7, ge=1, le=36_500, description="Days without a change and without a message"
    )


class TaskCleaned(BaseModel):
    """What went, at this time or, of a task that was cleaned before, since."""

    task_id: UUID
    cleaned_at: AwareDatetime
    messages_deleted: int
    task_states_deleted: int
    events_deleted: int = Field(
        description="Events stay, so that none is delivered twice; their content goes"
    )
    deleted: dict[str, int] = Field(description="The same for every part of a snapshot")
