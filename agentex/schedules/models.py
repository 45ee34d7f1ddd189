"""Schedules: which agent gets which input when, and who asked for it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints, model_validator
from sqlalchemy import BigInteger, CheckConstraint, Index, String, text
from sqlmodel import Field, SQLModel

from agentex.agents.models import AgentStatus
from agentex.auth.principal import Principal
from agentex.database import JsonColumn, JsonObject
from agentex.ids import new_id
from agentex.instants import Instant

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]*[a-z0-9]$|^[a-z0-9]$"
ScheduleName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=64)]
# How a name may begin.
NAME_PREFIX_PATTERN = r"^[a-z0-9][a-z0-9-]*$"
# Comes after every character that a name may have, by its byte.
AFTER_NAME_CHARACTERS = "{"
Description = Annotated[str, StringConstraints(max_length=10_000)]


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{value} is no whole number")  # noqa: TRY004 - pydantic reports no TypeError
    return value


# Else true is 1 and false 0.
Seconds = Annotated[int, BeforeValidator(_no_boolean)]
Interval = Annotated[int, Field(ge=1), BeforeValidator(_no_boolean)]
MAX_STAGGER_SECONDS = 3_600


class ScheduleState(StrEnum):
    """Whether a schedule owes runs."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


class FinishesOn(StrEnum):
    """When an async agent's run ends: on delivery, or when its task is closed."""

    DELIVERY = "delivery"
    TASK = "task"


class InputAuthor(StrEnum):
    """Who the input is from."""

    USER = "user"
    AGENT = "agent"


class InitialInput(BaseModel):
    """What the agent gets at each fire."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"] = "text"
    author: InputAuthor = InputAuthor.USER
    content: str = Field(min_length=1)


class RetryPolicy(BaseModel):
    """How long a delivery is tried, and whether a request with an unknown outcome is sent again."""

    model_config = ConfigDict(extra="forbid")

    window_seconds: Seconds = Field(default=600, ge=0, le=86_400)
    resend_unknown: bool = False


class Policies(BaseModel):
    """How a schedule's runs are carried out; unknown policies are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    retries: RetryPolicy = Field(default_factory=RetryPolicy)
    finishes_on: FinishesOn = FinishesOn.DELIVERY
    # Spreads the runs of one instant over this many seconds, the same place for a schedule each time.
    stagger_seconds: Seconds = Field(default=0, ge=0, le=MAX_STAGGER_SECONDS)


class Schedule(SQLModel, table=True):
    """One definition. version counts its changes and is its ETag; a deleted one stays for its runs."""

    __tablename__ = "agent_run_schedules"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        CheckConstraint("(cron_expression IS NULL) <> (interval_seconds IS NULL)", name="one_cadence"),
        CheckConstraint("interval_seconds >= 1", name="interval_seconds"),
        CheckConstraint("end_at > start_at", name="window"),
        Index(
            "uq_agent_run_schedules_agent_id_name",
            "agent_id",
            "name",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "ix_agent_run_schedules_agent_id_created_at",
            "agent_id",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        # Pausing moves an entry, which costs nothing more: updated_at has changed, so the update is not HOT.
        Index(
            "ix_agent_run_schedules_agent_id_paused_created_at",
            "agent_id",
            "paused",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "ix_agent_run_schedules_agent_id_updated_at",
            "agent_id",
            "updated_at",
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    agent_id: UUID = Field(foreign_key="agents.id")
    # Sorted by its bytes whatever the database's collation, so that the index on names finds prefixes.
    name: str = Field(sa_type=String(64, collation="C"))  # pyright: ignore[reportArgumentType]
    description: str | None = None
    cron_expression: str | None = None
    interval_seconds: int | None = None
    timezone: str = "UTC"
    start_at: datetime | None = None
    end_at: datetime | None = None
    paused: bool = False
    # Why it is paused, or was resumed: the caller's note, or ours.
    state_note: str | None = None
    task_params: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    task_metadata: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    initial_input: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    creator_principal: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    # fire_ids of instants that the user took out; past ones are pruned at writes.
    skipped_action_times: list[str] = Field(default_factory=list, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    policies: JsonObject = Field(default_factory=dict, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    version: int = 1
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


class ScheduleClock(SQLModel, table=True):
    """A schedule's attachment to a clock. It owes the clock's instants after active_from.

    checked_at is null until the sweep has looked, once, for instants that passed between active_from and
    the commit of the attachment: a tick before the commit could not see it, each later one does.
    """

    __tablename__ = "schedule_clocks"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index("ix_schedule_clocks_clock_id", "clock_id"),
        Index("ix_schedule_clocks_unchecked", "clock_id", postgresql_where=text("checked_at IS NULL")),
    )

    schedule_id: UUID = Field(foreign_key="agent_run_schedules.id", primary_key=True)
    clock_id: UUID = Field(foreign_key="clocks.id", primary_key=True)
    active_from: datetime
    checked_at: datetime | None = None


class ScheduleTotals(SQLModel, table=True):
    """What the ledger adds up to per schedule, kept by open_due: runs not skipped, and the last of them."""

    __tablename__ = "schedule_totals"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = ({"postgresql_with": {"fillfactor": 70}},)

    schedule_id: UUID = Field(primary_key=True)
    opened: int = Field(default=0, sa_type=BigInteger)
    last_due_at: datetime | None = None


class ScheduleRevision(SQLModel, table=True):
    """What a schedule was at each version: append-only, so that a run can say what it ran with."""

    __tablename__ = "schedule_revisions"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr

    schedule_id: UUID = Field(primary_key=True)
    version: int = Field(primary_key=True)
    # What happened: create, update, pause, resume, skip, unskip, transfer, delete.
    change: str
    note: str | None = None
    changed_by: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    definition: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    created_at: datetime


class ScheduleCreate(BaseModel):
    """A new schedule: exactly one of cron_expression and interval_seconds."""

    name: ScheduleName
    description: Description | None = None
    cron_expression: str | None = None
    interval_seconds: Interval | None = None
    timezone: str = "UTC"
    start_at: Instant | None = None
    end_at: Instant | None = None
    paused: bool = False
    task_params: JsonObject | None = None
    task_metadata: JsonObject | None = None
    initial_input: InitialInput
    policies: Policies = Field(default_factory=Policies)


class ScheduleUpdate(BaseModel):
    """A change: only the keys that are present apply; setting one cadence clears the other.

    null clears description, start_at, end_at, task_params and task_metadata, and is ignored for name,
    timezone, paused, initial_input and policies (wire.md §3).
    """

    name: ScheduleName | None = None
    description: Description | None = None
    cron_expression: str | None = None
    interval_seconds: Interval | None = None
    timezone: str | None = None
    start_at: Instant | None = None
    end_at: Instant | None = None
    paused: bool | None = None
    task_params: JsonObject | None = None
    task_metadata: JsonObject | None = None
    initial_input: InitialInput | None = None
    policies: Policies | None = None

    @model_validator(mode="after")
    def _one_cadence(self) -> Self:
        if self.cron_expression is not None and self.interval_seconds is not None:
            raise ValueError("cron_expression, interval_seconds: give one of the two, not both")
        return self


class ScheduleNote(BaseModel):
    """Why a schedule is paused or resumed."""

    note: str | None = Field(default=None, max_length=10_000)


class ScheduleInstant(BaseModel):
    """One of a schedule's instants."""

    scheduled_time: Instant


class ScheduleRead(BaseModel):
    """A schedule on the wire (wire.md §3), plus its policies, version, note, and how its agent stands."""

    id: UUID
    agent_id: UUID
    name: str
    description: str | None
    cron_expression: str | None
    interval_seconds: int | None
    timezone: str
    start_at: AwareDatetime | None
    end_at: AwareDatetime | None
    paused: bool
    task_params: JsonObject | None
    task_metadata: JsonObject | None
    initial_input: InitialInput
    initial_input_method: Literal["event/send", "message/send"]
    creator_principal: Principal
    created_at: AwareDatetime
    updated_at: AwareDatetime
    state: ScheduleState
    next_action_times: list[AwareDatetime]
    live_data_available: bool | None
    skipped_action_times: list[AwareDatetime]
    last_action_time: AwareDatetime | None
    num_actions_taken: int
    state_note: str | None
    policies: Policies
    version: int
    # Advice: an agent that is Unhealthy is called all the same, and its runs are tried again.
    agent_status: AgentStatus | None = Field(
        default=None, description="How the agent stands now; runs are launched whatever it says"
    )
    agent_status_reason: str | None = Field(default=None, description="Why, e.g. what its health check said")


class ScheduleTriggered(ScheduleRead):
    """The schedule, and the run that the trigger made."""

    run_id: UUID


class ScheduleList(BaseModel):
    """A page of an agent's schedules, newest first; total counts all of them."""

    run_schedules: list[ScheduleRead]
    total: int
    next_cursor: str | None = None
