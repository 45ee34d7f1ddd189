"""Agents: registered ACP services."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue, StringConstraints, field_validator
from sqlalchemy import CheckConstraint, Index, literal_column, text
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
    """What is known of an agent: advice for people, but that BuildOnly and Deleted are not called."""

    # It has registered, and nothing is known against it.
    READY = "Ready"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    DELETED = "Deleted"
    # Its /healthz has failed several times in a row; it is called all the same.
    UNHEALTHY = "Unhealthy"
    # Registered by its build and not deployed yet: there is nobody to call.
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
        Index("ix_agents_account_id_updated_at", "account_id", text("updated_at DESC"), text("id DESC")),
        # What the filter agent_card_metadata asks; the expression is CARD_METADATA_SQL.
        Index(
            "ix_agents_card_metadata",
            literal_column("(registration_metadata #> '{agent_card,metadata}')", JsonColumn).label(
                "card_metadata"
            ),
            postgresql_using="gin",
            postgresql_ops={"card_metadata": "jsonb_path_ops"},
            postgresql_where=text("deleted_at IS NULL"),
        ),
        # Only a build that nobody has deployed has no address.
        CheckConstraint("acp_url IS NOT NULL OR status IN ('BuildOnly', 'Deleted')", name="acp_url"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    owner: str
    name: str = Field(max_length=255)
    description: str
    acp_url: str | None = None
    acp_type: AcpType = Field(sa_type=text_enum(AcpType, "acp_type"))  # pyright: ignore[reportArgumentType]
    status: AgentStatus = Field(default=AgentStatus.READY, sa_type=text_enum(AgentStatus, "status"))  # pyright: ignore[reportArgumentType]
    status_reason: str | None = None
    # Probes of /healthz that have failed in a row, up to AGENTEX_AGENT_HEALTH_FAILURES.
    health_failures: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    registration_metadata: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    registered_at: datetime | None = None
    agent_input_type: AgentInputType | None = Field(
        default=None,
        sa_type=text_enum(AgentInputType, "agent_input_type"),  # pyright: ignore[reportArgumentType]
    )
    production_deployment_id: str | None = None
    # What the agent is called with, sealed: the key that it has registered with.
    sealed_key: str | None = None
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


class _Registration(BaseModel):
    """What a build and a running agent both say."""

    model_config = ConfigDict(extra="ignore")

    name: AgentName = Field(description="Unique in the account")
    description: str = Field(max_length=10_000, description="What the agent does")
    agent_input_type: AgentInputType | None = Field(
        default=None, description="What kind of content the agent prefers; left out: as it was"
    )
    registration_metadata: JsonObject | None = Field(
        default=None,
        description="agent_card, deployment_id, commit_sha, source_repo and the like; its keys are put into "
        "what is known, the others stay",
    )
    principal_context: JsonValue | None = Field(
        default=None, description="Taken and not used: who registers is known from the request"
    )


class AgentRegister(_Registration):
    """What an agent says of itself at its start (wire.md §1b)."""

    acp_url: str = Field(max_length=2_000, description="Where the agent is called, without /api")
    acp_type: AcpType = Field(description="sync, or async (alias agentic)")
    agent_id: str | None = Field(
        default=None, description="The agent's id where it knows it; one that is unknown here is ignored"
    )

    @field_validator("acp_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if not _is_http_url(value):
            raise ValueError(f"{value[:80]!r} is not an http(s) URL such as http://127.0.0.1:8000")
        return value


class AgentRegisterBuild(_Registration):
    """What a build says of an agent that is not deployed yet."""


class AgentRead(BaseModel):
    """An agent on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str = Field(description="Unique in the account")
    description: str = Field(description="What the agent does")
    acp_type: AcpType = Field(description="sync answers message/send, async (alias agentic) takes event/send")
    status: AgentStatus = Field(
        description="What is known of it; Unhealthy when its health checks fail, BuildOnly until it registers"
    )
    status_reason: str | None = Field(default=None, description="Why, e.g. what its health check said")
    registration_metadata: JsonObject | None = Field(
        default=None, description="What it has said at its registrations, e.g. agent_card, commit_sha"
    )
    registered_at: AwareDatetime | None = Field(default=None, description="When it last registered itself")
    agent_input_type: AgentInputType | None = Field(
        default=None, description="What kind of content it prefers"
    )
    production_deployment_id: str | None = Field(
        default=None, description="The deployment that production requests go to"
    )
    created_at: AwareDatetime
    updated_at: AwareDatetime


class AgentRegistered(AgentRead):
    """The answer to a registration, the only one that may have a key."""

    agent_api_key: str | None = Field(
        default=None,
        description="The agent's first key, made for a new name that somebody else registers: shown now and "
        "never again. Null for one that comes with its own, for a known name, and with AGENTEX_AUTH=none",
    )


class Deleted(BaseModel):
    """The answer to a delete."""

    id: UUID
    message: str
