"""Snapshots: a task with all that hangs on it, as it is exported and put back."""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from agentex.agents.models import AgentRead
from agentex.checkpoints.models import Key, Namespace
from agentex.database import JsonObject
from agentex.events.models import EventRead
from agentex.instants import Instant
from agentex.messages.models import MessageRead
from agentex.spans.models import SpanId, SpanRead
from agentex.states.models import StateRead
from agentex.tasks.models import TaskRead
from agentex.trackers.models import TrackerRead

# A bigint of Postgres.
_LARGEST_SEQUENCE_ID = 2**63 - 1

# Bytes as Postgres writes and reads them in JSON.
Bytes = Annotated[str, Field(pattern=r"^\\x([0-9a-f]{2})*$", description="Hexadecimal, behind a \\x")]


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


class StateEntry(StateRead):
    """A state: all its columns but the account."""

    created_at: Instant
    updated_at: Instant


class SpanEntry(SpanRead):
    """A span: all its columns but the account."""

    id: SpanId
    owner: str = Field(max_length=512)
    start_time: Instant
    end_time: Instant | None = None
    created_at: Instant
    updated_at: Instant


class TrackerEntry(TrackerRead):
    """A tracker: all its columns but the account."""

    created_at: Instant
    updated_at: Instant


class _OfThread(BaseModel):
    thread_id: Key
    checkpoint_ns: Namespace
    task_id: UUID


class CheckpointEntry(_OfThread):
    """A checkpoint: all its columns but the account."""

    checkpoint_id: Key
    parent_checkpoint_id: Key | None = None
    checkpoint: JsonObject
    checkpoint_metadata: JsonObject
    created_at: Instant


class CheckpointBlobEntry(_OfThread):
    """A channel's value at one version: all its columns but the account."""

    channel: Key
    version: Key
    type: str
    blob: Bytes | None = None


class CheckpointWriteEntry(_OfThread):
    """A pending write: all its columns but the account."""

    checkpoint_id: Key
    graph_task_id: Key
    idx: Annotated[int, Field(ge=-(2**31), lt=2**31)]
    task_path: str = ""
    channel: Key
    type: str | None = None
    blob: Bytes


class Snapshot(BaseModel):
    """A task and all that hangs on it. `task` and `agents` are for readers: they are not put back."""

    task_id: UUID
    task: TaskRead | None = None
    agents: list[AgentRead] | None = None
    messages: list[MessageEntry] = Field(default=[], description="Oldest first")
    events: list[EventEntry] = Field(
        default=[], description="Oldest first; those of a cleaned task are empty"
    )
    task_states: list[StateEntry] = []
    spans: list[SpanEntry] = Field(default=[], description="By when they began")
    trackers: list[TrackerEntry] = []
    checkpoints: list[CheckpointEntry] = []
    checkpoint_blobs: list[CheckpointBlobEntry] = []
    checkpoint_writes: list[CheckpointWriteEntry] = []


class SnapshotRestore(Snapshot):
    """A snapshot, or a piece of one, that is put back."""

    more: bool = Field(
        default=False,
        description="Whether further pieces follow: the task stays cleaned until one comes without it",
    )

    @model_validator(mode="after")
    def _has_parts(self) -> Self:
        parts = SnapshotRestore.model_fields.keys() - {"task_id", "task", "agents", "more"}
        if not self.model_fields_set & parts:
            raise ValueError(
                f"has none of {', '.join(sorted(parts))}: give what the export had, empty lists too"
            )
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
