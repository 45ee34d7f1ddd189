"""States: what an agent keeps of a task between two of its turns."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic import Field as Described
from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from agentex.database import JsonColumn, JsonObject
from agentex.ids import new_id


class StateOrder(StrEnum):
    """What a list can be ordered by: what its indexes hold."""

    CREATED_AT = "created_at"


class State(SQLModel, table=True):
    """One agent's state in one task, replaced as a whole."""

    __tablename__ = "states"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        UniqueConstraint("task_id", "agent_id", name="uq_states_task_id_agent_id"),
        Index("ix_states_account_id_created_at", "account_id", text("created_at DESC"), text("id DESC")),
        Index("ix_states_agent_id_created_at", "agent_id", text("created_at DESC"), text("id DESC")),
        # Updates are the hot path, and touch no index: room in the page keeps them there (HOT).
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    task_id: UUID = Field(foreign_key="tasks.id", ondelete="CASCADE")
    agent_id: UUID = Field(foreign_key="agents.id")
    state: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    created_at: datetime
    updated_at: datetime


class StateCreate(BaseModel):
    """A first state of an agent in a task."""

    task_id: UUID
    agent_id: UUID
    state: JsonObject


class StateUpdate(BaseModel):
    """A state as it is from now on; agents built with older SDKs also say whose it is."""

    state: JsonObject
    task_id: UUID | None = Described(default=None, description="If given, the state must be of this task")
    agent_id: UUID | None = Described(default=None, description="If given, the state must be of this agent")


class StateRead(BaseModel):
    """A State on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    task_id: UUID
    agent_id: UUID
    state: JsonObject
    created_at: AwareDatetime
    updated_at: AwareDatetime
