"""Members of accounts, their keys, and what they share."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from agentex.auth.authorize import ResourceType
from agentex.auth.rules import Role
from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.ids import new_id


class Member(SQLModel, table=True):
    """A principal of an account, and what it may do there; role null: only what it was granted."""

    __tablename__ = "members"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr

    account_id: str = Field(primary_key=True)
    # Principal.creator
    name: str = Field(primary_key=True)
    principal: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    role: Role | None = Field(default=None, sa_type=text_enum(Role, "role"))  # pyright: ignore[reportArgumentType]
    created_at: datetime
    updated_at: datetime
    # When the token was issued that the role is from, where an OIDC issuer says who is what.
    claims_at: datetime | None = None
    # It has left: its credentials open nothing, and what it has scheduled is paused at its next fire.
    disabled_at: datetime | None = None


class ApiKey(SQLModel, table=True):
    """A credential of a member. Of the key its SHA-256 is kept: enough for what is random, and quick."""

    __tablename__ = "api_keys"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "member"], ["members.account_id", "members.name"]),
        UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
        Index("ix_api_keys_account_id_created_at", "account_id", text("created_at DESC"), text("id DESC")),
        Index("ix_api_keys_member", "account_id", "member"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    member: str
    # What its owner calls it.
    name: str = Field(max_length=255)
    # How it begins, by which its holder recognises it.
    key_prefix: str
    key_hash: str
    # What it is limited to, e.g. ["task.read", "schedule.*"]; null: all that its member may do.
    scopes: list[str] | None = Field(default=None, sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    # Of an agent's key: the key sealed with AGENTEX_SECRET_KEY, for agents take requests with it alone.
    sealed_key: str | None = None
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    # To the minute.
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class Grant(SQLModel, table=True):
    """What a member may do to one resource that is not its own."""

    __tablename__ = "grants"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "member"], ["members.account_id", "members.name"]),
        UniqueConstraint(
            "account_id",
            "member",
            "resource_type",
            "resource_id",
            name="uq_grants_account_id_member_resource_type_resource_id",
        ),
        Index("ix_grants_resource_type_resource_id", "resource_type", "resource_id"),
        CheckConstraint("jsonb_array_length(operations) > 0", name="operations"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    member: str
    resource_type: ResourceType = Field(sa_type=text_enum(ResourceType, "resource_type"))  # pyright: ignore[reportArgumentType]
    resource_id: UUID
    operations: list[str] = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    granted_by: str
    created_at: datetime


class RegistrationAction(StrEnum):
    """What a remote authorizer is to be told of a resource (wire.md §4)."""

    # It is there, under its agent, and its maker has it.
    REGISTER = "register"
    # Nobody has it any more, and it is gone.
    DEREGISTER = "deregister"
    # It has been given away: to this principal, or from it.
    GRANT = "grant"
    REVOKE = "revoke"


class Registration(SQLModel, table=True):
    """What a remote authorizer is yet to be told; written by triggers, with what is made or removed."""

    __tablename__ = "registrations"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index(
            "ix_registrations_next_attempt_at", "next_attempt_at", postgresql_where=text("told_at IS NULL")
        ),
        Index("ix_registrations_selector_id", "selector", "id"),
    )

    # In the order of their making: of one resource the earlier is told first.
    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True, nullable=False)
    )
    account_id: str
    principal: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    resource_type: ResourceType = Field(sa_type=text_enum(ResourceType, "resource_type"))  # pyright: ignore[reportArgumentType]
    selector: str
    parent_agent_id: UUID | None = None
    action: RegistrationAction = Field(sa_type=text_enum(RegistrationAction, "action"))  # pyright: ignore[reportArgumentType]
    created_at: datetime
    next_attempt_at: datetime
    attempts: int
    error: str | None = None
    # Kept for some seconds yet: whoever was told no just before has to know that it is worth asking anew.
    told_at: datetime | None = None
