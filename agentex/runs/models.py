"""The run ledger: one row for every instant that a schedule owed, and for every run on demand."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import CheckConstraint, Index, TextClause, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from agentex.auth.principal import Principal
from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.executors.base import Lane
from agentex.ids import new_id


class RunStatus(StrEnum):
    """Where a run stands (arrows: design.md §5)."""

    DUE = "due"  # opened, waiting to be launched or tried again
    QUEUED = "queued"  # waits behind another run of its schedule
    LAUNCHING = "launching"  # a worker has claimed it
    DELIVERED = "delivered"  # the agent took the input and nobody follows its work: an honest end
    RUNNING = "running"  # the agent works on it and its end is followed
    WAITING_FOR_INPUT = "waiting_for_input"  # waits for an answer to an input request
    SUCCEEDED = "succeeded"  # the agent ended it well
    FAILED = "failed"  # it ended badly; the reason says how
    CANCELED = "canceled"  # a caller or its task's end stopped it
    TIMED_OUT = "timed_out"  # it did not end in the time it had
    SKIPPED = "skipped"  # it was owed and did not run; the reason says why


# Those that never lack a reason, and those of runs that have not finished: partial indexes hold them.
REASONED_STATUSES = frozenset({RunStatus.FAILED, RunStatus.SKIPPED})
UNFINISHED_STATUSES = frozenset(
    {
        RunStatus.DUE,
        RunStatus.QUEUED,
        RunStatus.LAUNCHING,
        RunStatus.RUNNING,
        RunStatus.WAITING_FOR_INPUT,
    }
)


class RunCause(StrEnum):
    """What made a run."""

    CADENCE = "cadence"
    MANUAL = "manual"
    BACKFILL = "backfill"
    CATCH_UP = "catch_up"
    WEBHOOK = "webhook"
    EVENT = "event"
    API = "api"


class RunReason(StrEnum):
    """Why a run was skipped or failed."""

    OVERLAP = "overlap"
    DENIED = "denied"
    AGENT_DELETED = "agent_deleted"
    MISSED = "missed"
    SKIPPED_BY_USER = "skipped_by_user"
    PAUSED = "paused"
    DEFINITION_CHANGED = "definition_changed"
    SCHEDULE_DELETED = "schedule_deleted"
    LIMIT_REACHED = "limit_reached"
    BUDGET = "budget"
    BREAKER = "breaker"
    BLACKOUT = "blackout"
    AGENT_ERROR = "agent_error"
    AGENT_UNREACHABLE = "agent_unreachable"
    AGENT_PROTOCOL = "agent_protocol"
    OUTCOME_UNKNOWN = "outcome_unknown"
    TEMPLATE = "template"
    CONFIGURATION = "configuration"
    OURS = "ours"


def _open_and(column: str) -> TextClause:
    return text(f"finished_at IS NULL AND {column} IS NOT NULL")


class Run(SQLModel, table=True):
    """One occurrence. UNIQUE (schedule_id, fire_id) is what keeps an instant from running twice.

    No foreign key to the schedule: it costs the open 1.2–2.6 times and blocks retention. No index on
    status: with one no update is HOT, without it a third is.
    """

    __tablename__ = "runs"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        UniqueConstraint("schedule_id", "fire_id", name="uq_runs_schedule_id_fire_id"),
        CheckConstraint("status <> 'skipped' OR reason IS NOT NULL", name="skipped_has_reason"),
        CheckConstraint("status <> 'failed' OR reason IS NOT NULL", name="failed_has_reason"),
        Index("ix_runs_schedule_id_due_at", "schedule_id", text("due_at DESC"), text("id DESC")),
        Index("ix_runs_account_id_due_at", "account_id", text("due_at DESC"), text("id DESC")),
        Index("ix_runs_agent_id_due_at", "agent_id", text("due_at DESC"), text("id DESC")),
        # Where a status filter's few rows stand among millions. A column of a predicate costs HOT as one of a
        # key does: finished_at is in others' already, and reason is written only with finished_at.
        Index(
            "ix_runs_account_id_due_at_reasoned",
            "account_id",
            text("due_at DESC"),
            text("id DESC"),
            postgresql_where=text("reason IS NOT NULL"),
        ),
        Index(
            "ix_runs_account_id_due_at_unfinished",
            "account_id",
            text("due_at DESC"),
            text("id DESC"),
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index("ix_runs_batch_id_lane_page", "batch_id", "lane", "page"),
        Index("ix_runs_task_id", "task_id"),
        # What waits or is claimed: a claim leaves next_attempt_at as it was, its record clears it. So what
        # runs for days is not in it, and neither a claim nor a mark changes an indexed column.
        Index("ix_runs_next_attempt_at", "next_attempt_at", postgresql_where=_open_and("next_attempt_at")),
        Index("ix_runs_deadline_at", "deadline_at", postgresql_where=_open_and("deadline_at")),
        # Cancels that nobody has carried out yet, whether their run has ended or not.
        Index("ix_runs_to_stop_since", "to_stop_since", postgresql_where=text("to_stop_since IS NOT NULL")),
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    agent_id: UUID
    schedule_id: UUID | None = None
    schedule_version: int | None = None
    fire_id: str
    cause: RunCause = Field(sa_type=text_enum(RunCause, "cause"))  # pyright: ignore[reportArgumentType]
    due_at: datetime
    due_until: datetime | None = None
    count: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    input: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    params: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    batch_id: UUID | None = None
    lane: Lane | None = Field(default=None, sa_type=text_enum(Lane, "lane"))  # pyright: ignore[reportArgumentType]
    page: int | None = None
    status: RunStatus = Field(sa_type=text_enum(RunStatus, "status"))  # pyright: ignore[reportArgumentType]
    reason: RunReason | None = Field(default=None, sa_type=text_enum(RunReason, "reason"))  # pyright: ignore[reportArgumentType]
    attempt: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    claimed_by: UUID | None = None
    claimed_until: datetime | None = None
    next_attempt_at: datetime | None = None
    task_created_at: datetime | None = None
    sending_at: datetime | None = None
    # The schedule's policies, in the row for those who settle a run whose worker is gone.
    resend_unknown: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    finishes_on_task: bool = Field(default=False, sa_column_kwargs={"server_default": "false"})
    deadline_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    # Set with the cancel, null again once the run's task is closed or there is none.
    to_stop_since: datetime | None = None
    opened_at: datetime
    launched_at: datetime | None = None
    delivered_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime
    task_id: UUID | None = None
    principal: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    output: list[JsonObject] | None = Field(default=None, sa_type=JSONB(none_as_null=True))  # pyright: ignore[reportArgumentType]
    error: str | None = None


class RunRead(BaseModel):
    """A run on the wire: every instant, attempt, reason and error; output is a sync agent's answer."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    agent_id: UUID
    schedule_id: UUID | None
    schedule_version: int | None
    fire_id: str
    cause: RunCause
    due_at: AwareDatetime
    due_until: AwareDatetime | None
    count: int
    status: RunStatus
    reason: RunReason | None
    error: str | None
    attempt: int
    opened_at: AwareDatetime
    launched_at: AwareDatetime | None
    task_created_at: AwareDatetime | None
    sending_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    next_attempt_at: AwareDatetime | None
    cancel_requested_at: AwareDatetime | None
    updated_at: AwareDatetime
    task_id: UUID | None
    principal: Principal
    output: list[JsonObject] | None


class RunPage(BaseModel):
    """A page of runs, newest instant first; next_cursor is null on the last one, and only there.

    With status or cause a page that is not the last may have fewer runs than its limit, or none.
    """

    runs: list[RunRead]
    next_cursor: str | None = None
