"""Tasks: ACP's conversation with one agent."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from agentex.agents.models import AgentRead
from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.ids import new_id


class TaskStatus(StrEnum):
    """Where a task stands; all but RUNNING and INTERRUPTED are terminal."""

    RUNNING = "RUNNING"
    INTERRUPTED = "INTERRUPTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    TERMINATED = "TERMINATED"
    TIMED_OUT = "TIMED_OUT"
    DELETED = "DELETED"


# Somebody has given the task up. One that is COMPLETED or FAILED was closed by its agent, which may go on to
# say so.
GIVEN_UP_STATUSES = frozenset(
    {TaskStatus.CANCELED, TaskStatus.TERMINATED, TaskStatus.TIMED_OUT, TaskStatus.DELETED}
)
OPEN_STATUSES = frozenset({TaskStatus.RUNNING, TaskStatus.INTERRUPTED})


class Task(SQLModel, table=True):
    """One conversation."""

    __tablename__ = "tasks"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        UniqueConstraint("account_id", "name", name="uq_tasks_account_id_name"),
        Index("ix_tasks_account_id_created_at", "account_id", text("created_at DESC"), text("id DESC")),
        Index("ix_tasks_agent_id_created_at", "agent_id", text("created_at DESC"), text("id DESC")),
        Index(
            "ix_tasks_account_id_status_created_at",
            "account_id",
            "status",
            text("created_at DESC"),
            text("id DESC"),
        ),
        Index("ix_tasks_account_id_updated_at", "account_id", text("updated_at DESC"), text("id DESC")),
        # An agent sees what hangs on it and what it owns; of the others nobody is limited to what is his own.
        Index(
            "ix_tasks_owner_created_at",
            "account_id",
            "owner",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("owner LIKE 'agent:%'"),
        ),
        # Half the size of one with the default operators, and knows @>, which is all that is asked.
        Index(
            "ix_tasks_task_metadata",
            "task_metadata",
            postgresql_using="gin",
            postgresql_ops={"task_metadata": "jsonb_path_ops"},
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    owner: str
    agent_id: UUID = Field(foreign_key="agents.id")
    name: str | None = None
    status: TaskStatus = Field(default=TaskStatus.RUNNING, sa_type=text_enum(TaskStatus, "status"))  # pyright: ignore[reportArgumentType]
    status_reason: str | None = None
    params: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    task_metadata: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    created_at: datetime
    updated_at: datetime
    cleaned_at: datetime | None = None


class _TaskFields(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str | None = None
    status: TaskStatus
    status_reason: str | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    cleaned_at: AwareDatetime | None = Field(
        default=None, description="When its content was removed; null while it has all of it"
    )
    task_metadata: JsonObject | None = None


class TaskListed(_TaskFields):
    """A task in a list: without params, which may be large."""

    agents: list[AgentRead] | None = Field(default=None, description="Only with relationships=agents")


class TaskRead(_TaskFields):
    """A task on the wire."""

    params: JsonObject | None = None


class TaskReadWithAgents(TaskRead):
    """A single task, with its agent."""

    agents: list[AgentRead]


class TaskReason(BaseModel):
    """Why a task is closed or interrupted."""

    reason: str | None = Field(default=None, max_length=10_000)


class TaskUpdate(BaseModel):
    """What changes in a task; null and absent both leave it as it is."""

    task_metadata: JsonObject | None = Field(default=None, description="Replaces the metadata as a whole")
    merge_params: JsonObject | None = Field(
        default=None,
        description="Laid over the params: its keys replace theirs, whole values at a time; others stay",
    )


class TaskQueryResult(BaseModel):
    """What a task's workflow has answered."""

    task_id: UUID
    query: str
    result: Any = Field(description="The query's answer, any JSON")
