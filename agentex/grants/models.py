"""What is shared, on the wire."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from agentex.auth.authorize import Operation, ResourceType
from agentex.auth.owners import MemberName


class SharedType(StrEnum):
    """What can be shared. Keys cannot: who has a key acts as somebody else."""

    AGENT = ResourceType.AGENT
    TASK = ResourceType.TASK
    SCHEDULE = ResourceType.SCHEDULE
    RUN = ResourceType.RUN


class SharedOperation(StrEnum):
    """What can be allowed with one resource; making new ones goes by roles."""

    READ = Operation.READ
    UPDATE = Operation.UPDATE
    DELETE = Operation.DELETE
    EXECUTE = Operation.EXECUTE
    CANCEL = Operation.CANCEL


class GrantCreate(BaseModel):
    """What a member is to be allowed with one resource; in place of what it was allowed with it before."""

    member: MemberName
    resource_type: SharedType
    resource_id: UUID
    operations: frozenset[SharedOperation] = Field(
        min_length=1, description="read goes with any other: what cannot be read is not there"
    )


class GrantRead(BaseModel):
    """What a member may do to one resource that is not its own."""

    id: UUID
    member: str
    resource_type: SharedType
    resource_id: UUID
    operations: list[SharedOperation]
    granted_by: str
    created_at: AwareDatetime


class GrantPage(BaseModel):
    """Who else has a resource, the newest grant first."""

    grants: list[GrantRead]
    next_cursor: str | None = None
