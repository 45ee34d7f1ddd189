"""The audit: who did what when, to which object, from where. Rows are added and never changed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from pydantic import Field as ApiField
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from agentex.database import text_enum
from agentex.ids import new_id
from agentex.noted import Audited

# The setting that lets a transaction delete what is older than the instant in it; the trigger asks for it.
FORGETS_BEFORE = "agentex.audit_forgets_before"
MAX_TEXT = 200
_NEWEST_FIRST = (text("at DESC"), text("id DESC"))


class Outcome(StrEnum):
    """How a request ended."""

    # It was carried out; of an answer that is streamed: it has begun.
    DONE = "done"
    # 403: the caller may not do that.
    DENIED = "denied"
    # Another 4xx.
    REFUSED = "refused"
    # 5xx, or the client went away meanwhile: how much was carried out is not known.
    FAILED = "failed"


class AuditEntry(SQLModel, table=True):
    """One request that changes something, or was to; never what was in it."""

    __tablename__ = "audit_entries"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    # Each filter of GET /audit has an index in the list's order. What is done needs none of its own: it is
    # nearly all.
    __table_args__ = (
        Index("ix_audit_entries_at", "account_id", *_NEWEST_FIRST),
        Index("ix_audit_entries_principal", "account_id", "principal", *_NEWEST_FIRST),
        Index("ix_audit_entries_operation", "account_id", "operation", *_NEWEST_FIRST),
        Index("ix_audit_entries_resource_type", "account_id", "resource_type", *_NEWEST_FIRST),
        Index("ix_audit_entries_resource_id", "account_id", "resource_id", *_NEWEST_FIRST),
        Index(
            "ix_audit_entries_not_done",
            "account_id",
            "outcome",
            *_NEWEST_FIRST,
            postgresql_where=text("outcome <> 'done'"),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    at: datetime
    # Principal.creator, `anonymous` for a caller that is not known.
    principal: str
    operation: str
    rpc_method: str | None = None
    resource_type: Audited = Field(sa_type=text_enum(Audited, "resource_type"))  # pyright: ignore[reportArgumentType]
    resource_id: str | None = None
    agent_id: UUID | None = None
    outcome: Outcome = Field(sa_type=text_enum(Outcome, "outcome"))  # pyright: ignore[reportArgumentType]
    # null: it was no HTTP request.
    status: int | None = None
    request_id: str | None = None
    address: str
    user_agent: str | None = None


class AuditRead(BaseModel, from_attributes=True):
    """Who did what when, to which object, from where."""

    id: UUID
    at: AwareDatetime
    principal: str = ApiField(examples=["user:alice", "agent:greeter", "anonymous"])
    operation: str = ApiField(description="The operationId of the route", examples=["delete_task"])
    rpc_method: str | None = ApiField(description="Of a JSON-RPC request", examples=["event/send"])
    resource_type: Audited
    resource_id: str | None = ApiField(
        description="Its id, or its name where the path has that; null when neither is known"
    )
    agent_id: UUID | None = ApiField(description="The agent in whose path it is")
    outcome: Outcome = ApiField(
        description="denied: 403, refused: another 4xx, failed: 5xx, or the client went away; of JSON-RPC, "
        "whose errors are 200, too"
    )
    status: int | None = ApiField(description="The HTTP status; null for the command line")
    request_id: str | None = ApiField(description="As in x-request-id and in the log")
    address: str = ApiField(description="Where it came from: an IP address, or `command line`")
    user_agent: str | None


class AuditPage(BaseModel):
    """A page of entries, newest first; next_cursor is null on the last one, and only there."""

    entries: list[AuditRead]
    next_cursor: str | None = None
