"""Agents: registered ACP services."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, field_validator
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.ids import new_id

AgentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", min_length=1, max_length=255)]


class AcpType(StrEnum):
    """How an agent takes input: sync answers message/send, async (alias agentic) takes event/send."""

    SYNC = "sync"
    ASYNC = "async"
    AGENTIC = "agentic"


class AgentStatus(StrEnum):
    """Whether an agent can be called."""

    READY = "Ready"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    DELETED = "Deleted"
    UNHEALTHY = "Unhealthy"
    BUILD_ONLY = "BuildOnly"


class AgentInputType(StrEnum):
    """What kind of content an agent prefers."""

    TEXT = "text"
    JSON = "json"


class Agent(SQLModel, table=True):
    """One agent. A deleted one stays as a row (status Deleted), so that old runs can still name it."""

    __tablename__ = "agents"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index(
            "uq_agents_account_id_name",
            "account_id",
            "name",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        # Across accounts: by which a webhook finds whose it is.
        Index("ix_agents_name", "name", postgresql_where=text("deleted_at IS NULL")),
        Index("ix_agents_account_id_created_at", "account_id", text("created_at DESC"), text("id DESC")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    owner: str
    name: str = Field(max_length=255)
    description: str
    acp_url: str
    acp_type: AcpType = Field(sa_type=text_enum(AcpType, "acp_type"))  # pyright: ignore[reportArgumentType]
    status: AgentStatus = Field(default=AgentStatus.READY, sa_type=text_enum(AgentStatus, "status"))  # pyright: ignore[reportArgumentType]
    status_reason: str | None = None
    registration_metadata: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    registered_at: datetime | None = None
    agent_input_type: AgentInputType | None = Field(
        default=None,
        sa_type=text_enum(AgentInputType, "agent_input_type"),  # pyright: ignore[reportArgumentType]
    )
    production_deployment_id: str | None = None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


def _is_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        # Reading the port checks it.
        has_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and has_address and not any(c.isspace() for c in value)


class AgentRegister(BaseModel):
    """What an agent says of itself at its start (wire.md §1b)."""

    model_config = ConfigDict(extra="ignore")

    name: AgentName
    description: str = Field(max_length=10_000)
    acp_url: str = Field(max_length=2_000)
    acp_type: AcpType
    agent_id: str | None = None
    agent_input_type: AgentInputType | None = None
    principal_context: JsonObject | None = None
    registration_metadata: JsonObject | None = None

    @field_validator("acp_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if not _is_http_url(value):
            raise ValueError(f"{value[:80]!r} is not an http(s) URL such as http://127.0.0.1:8000")
        return value


class AgentRead(BaseModel):
    """An agent on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    description: str
    acp_type: AcpType
    status: AgentStatus
    status_reason: str | None = None
    registration_metadata: JsonObject | None = None
    registered_at: AwareDatetime | None = None
    agent_input_type: AgentInputType | None = None
    production_deployment_id: str | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class AgentRegistered(AgentRead):
    """The answer to a registration; the key stays null until keys exist."""

    agent_api_key: str | None = None


class Deleted(BaseModel):
    """The answer to a delete."""

    id: UUID
    message: str
