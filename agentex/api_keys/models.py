"""Keys and members on the wire; their tables are in auth/models.py."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from agentex.auth.principal import PrincipalType
from agentex.auth.rules import Role
from agentex.instants import Instant
from agentex.settings import Auth

# A rotation that has not reached every holder of the old key by then never will.
MAX_OVERLAP_SECONDS = 30 * 24 * 3600
# All types with all operations and more.
MAX_SCOPES = 100

MEMBER_PATTERN = r"^(user|service_account|agent):[\x21-\x7e]{1,200}$"
MemberName = Annotated[str, StringConstraints(pattern=MEMBER_PATTERN)]
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Scope = Annotated[str, StringConstraints(max_length=100)]

_SCOPES = "What the key is limited to, e.g. task.read, schedule.*; null: all that its member may do"
_EXPIRES_AT = "When it ends by itself; null: never"


class _Strict(BaseModel):
    # A limit whose name is misspelled must not be passed over: the key would have none.
    model_config = ConfigDict(extra="forbid")


class KeyCreate(_Strict):
    """A key that is wanted. It may do no more, and live no longer, than the credential that asks for it."""

    name: KeyName = Field(description="What it is called in lists")
    member: MemberName | None = Field(
        default=None,
        description="Whose key it is, e.g. service_account:ci; yours when it is left out. Admins only: "
        "another member's",
    )
    scopes: Annotated[list[Scope], Field(max_length=MAX_SCOPES)] | None = Field(
        default=None, description=_SCOPES
    )
    expires_at: Instant | None = Field(default=None, description=_EXPIRES_AT)


class KeyRotate(_Strict):
    """How a key is replaced by a new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] = Field(
        default=3600, description="How long the old key still opens what it opens"
    )
    expires_at: Instant | None = Field(
        default=None, description="When the new key ends by itself; when the old one would have, if left out"
    )


class KeyRead(BaseModel):
    """What is told of a key: all but the key."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    member: str = Field(description="Whose key it is")
    name: str
    key_prefix: str = Field(description="How the key begins")
    scopes: list[str] | None = Field(description=_SCOPES)
    created_by: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = Field(description=_EXPIRES_AT)
    last_used_at: AwareDatetime | None = Field(description="To the minute; null: never")
    revoked_at: AwareDatetime | None = Field(description="Since when it opens nothing any more")


class KeyCreated(KeyRead):
    """The answer to a creation, the only one that has the key."""

    api_key: str = Field(description="The key: shown now and never again")


class KeyRotated(KeyCreated):
    """The answer to a rotation: the new key, and the old one as it stands now."""

    replaced: KeyRead


class KeyPage(BaseModel):
    """A page of keys, newest first; next_cursor is null on the last one, and only there."""

    api_keys: list[KeyRead]
    next_cursor: str | None = None


class MemberPut(_Strict):
    """What a member is in the account."""

    role: Role | None = Field(
        description="admin, operator, editor or viewer; agent for agents; null: a guest, who may do what was "
        "granted"
    )


class MemberRead(BaseModel):
    """A member of the account."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="Its kind and id, e.g. user:alice, service_account:ci, agent:greeter")
    role: Role | None = Field(description="null: a guest, who may do what was granted")
    created_at: AwareDatetime
    updated_at: AwareDatetime
    disabled_at: AwareDatetime | None = Field(description="Since when its credentials open nothing")


class MemberPage(BaseModel):
    """A page of members by name; next_cursor is null on the last one, and only there."""

    members: list[MemberRead]
    next_cursor: str | None = None


class WhoAmI(BaseModel):
    """The caller, as this server knows it."""

    member: str = Field(description="Its name in the account, as it stands in owner and created_by")
    principal_type: PrincipalType | None
    user_id: str | None
    service_account_id: str | None = Field(description="Of an agent: its name")
    account_id: str
    role: Role | None = Field(description="null: none is known here")
    scopes: list[str] | None = Field(description="What its credential is limited to; null: nothing")
    expires_at: AwareDatetime | None = Field(description="When its credential ends, if that is known")
    auth: Auth = Field(description="What says who calls (AGENTEX_AUTH)")
