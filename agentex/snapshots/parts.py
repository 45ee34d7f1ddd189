"""The tables that hang on a task, in the order in which they are put back.

What a slice adds: a line here, and a field of the same name in `models.Snapshot`, whose entries have all
columns of the table but account_id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sqlalchemy import Table
from sqlmodel import SQLModel

from agentex.checkpoints.models import Checkpoint, CheckpointBlob, CheckpointWrite
from agentex.events.models import Event
from agentex.messages.models import Message
from agentex.spans.models import Span
from agentex.states.models import State
from agentex.trackers.models import Tracker


@dataclass(frozen=True)
class Part:
    """One table of what hangs on a task; every row has task_id and account_id.

    order: columns that sort the rows of a task and tell any two apart; an index behind task_id has them where
    a task may have very many rows.
    emptied: columns that a clean sets to null where the rows must stay. Without any, the rows go.
    """

    name: str
    model: type[SQLModel]
    order: tuple[str, ...]
    emptied: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The table's name in SQL."""
        return self._table.name

    @property
    def columns(self) -> tuple[str, ...]:
        """All its columns."""
        return tuple(column.name for column in self._table.columns)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of its primary key."""
        return tuple(column.name for column in self._table.primary_key.columns)

    @property
    def _table(self) -> Table:
        return cast("Table", self.model.__table__)  # pyright: ignore[reportAttributeAccessIssue] - SQLModel adds it


PARTS = (
    Part("messages", Message, ("created_at", "id")),
    # A run's event stays: it is what keeps its input from being delivered once more.
    Part("events", Event, ("sequence_id",), emptied=("content",)),
    Part("task_states", State, ("created_at", "id")),
    Part("spans", Span, ("start_time", "id")),
    # An agent's place stays, as the events do.
    Part("trackers", Tracker, ("agent_id",), emptied=("status_reason",)),
    Part("checkpoints", Checkpoint, ("checkpoint_ns", "checkpoint_id")),
    Part("checkpoint_blobs", CheckpointBlob, ("checkpoint_ns", "channel", "version")),
    Part("checkpoint_writes", CheckpointWrite, ("checkpoint_ns", "checkpoint_id", "graph_task_id", "idx")),
)
