"""Deployments: where one build of an agent runs; and the history of what an agent has been."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from agentex.agents.models import AcpType
from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.ids import new_id


class DeploymentStatus(StrEnum):
    """How far a deployment has come."""

    # It is made, and its agent process has not registered yet.
    PENDING = "Pending"
    # Its agent process has registered, so it can be tried and promoted.
    READY = "Ready"
    FAILED = "Failed"


class Deployment(SQLModel, table=True):
    """One deployment of an agent. The agent's row says which one is in production."""

    __tablename__ = "deployments"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index("ix_deployments_agent_id_created_at", "agent_id", text("created_at DESC"), text("id DESC")),
        Index(
            "ix_deployments_agent_id_promoted_at",
            "agent_id",
            text("promoted_at DESC NULLS LAST"),
            text("id DESC"),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    agent_id: UUID = Field(foreign_key="agents.id")
    owner: str
    docker_image: str
    status: DeploymentStatus = Field(sa_type=text_enum(DeploymentStatus, "status"))  # pyright: ignore[reportArgumentType]
    # What its agent process said when it registered; null before that.
    acp_url: str | None = None
    acp_type: AcpType | None = Field(default=None, sa_type=text_enum(AcpType, "acp_type"))  # pyright: ignore[reportArgumentType]
    registration_metadata: JsonObject | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    sgp_deploy_id: str | None = None
    helm_release_name: str | None = None
    created_at: datetime
    promoted_at: datetime | None = None
    expires_at: datetime | None = None


class DeploymentHistory(SQLModel, table=True):
    """A commit that began to serve as an agent."""

    __tablename__ = "deployment_history"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index(
            "ix_deployment_history_agent_id_deployment_timestamp",
            "agent_id",
            text("deployment_timestamp DESC"),
            text("id DESC"),
        ),
        Index(
            "ix_deployment_history_agent_id_build_timestamp",
            "agent_id",
            text("build_timestamp DESC"),
            text("id DESC"),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    agent_id: UUID = Field(foreign_key="agents.id")
    commit_hash: str
    branch_name: str
    author_name: str
    author_email: str
    build_timestamp: datetime
    deployment_timestamp: datetime


class DeploymentCreate(BaseModel):
    """A deployment that is under way."""

    docker_image: str = Field(
        min_length=1, max_length=2_000, description="The image's full name, with its tag"
    )
    registration_metadata: JsonObject | None = Field(
        default=None,
        description="What is known of the build: commit_hash, branch_name, author_name, author_email, "
        "build_timestamp",
    )
    sgp_deploy_id: str | None = Field(
        default=None, max_length=255, description="The id that whoever deploys has for it"
    )
    helm_release_name: str | None = Field(
        default=None, max_length=255, description="The Helm release, for whoever cleans up"
    )


class DeploymentRead(BaseModel):
    """A deployment on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    agent_id: UUID
    docker_image: str
    status: DeploymentStatus
    is_production: bool = Field(description="Whether the agent is this deployment")
    acp_url: str | None = Field(default=None, description="Where it is called; null until it has registered")
    registration_metadata: JsonObject | None = None
    sgp_deploy_id: str | None = None
    helm_release_name: str | None = None
    created_at: AwareDatetime
    promoted_at: AwareDatetime | None = Field(default=None, description="When it last went into production")
    expires_at: AwareDatetime | None = Field(
        default=None, description="Since when it is deleted, and may be cleaned up"
    )


class DeploymentHistoryRead(BaseModel):
    """A commit that began to serve as an agent, on the wire."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    agent_id: UUID
    commit_hash: str
    branch_name: str = Field(description="N/A where the registration did not say; so are the author's fields")
    author_name: str
    author_email: str
    build_timestamp: AwareDatetime = Field(
        description="The build's time; deployment_timestamp where it is not known"
    )
    deployment_timestamp: AwareDatetime = Field(description="When it was first seen")
