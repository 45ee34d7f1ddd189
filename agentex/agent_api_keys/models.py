"""Keys of agents: what opens /agents/forward. Of a key its hash is kept; a signing secret is kept sealed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, SecretStr, StringConstraints
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from agentex.database import JsonColumn, JsonObject, text_enum
from agentex.ids import new_id


class ApiKeyType(StrEnum):
    """What a key is for."""

    # Given to the agent itself.
    INTERNAL = "internal"
    # Given to somebody who may call the agent's own routes.
    EXTERNAL = "external"
    # Not sent, but signed with: the secret of a GitHub webhook, the Signing Secret of a Slack app.
    GITHUB = "github"
    SLACK = "slack"


SIGNING_TYPES = frozenset({ApiKeyType.GITHUB, ApiKeyType.SLACK})

# A repository's full name, a Slack app's id, or whatever somebody calls a key.
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class AgentApiKey(SQLModel, table=True):
    """One key. It acts for who made it, whose rights are asked for again when it is used."""

    __tablename__ = "agent_api_keys"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        UniqueConstraint(
            "agent_id", "api_key_type", "name", name="uq_agent_api_keys_agent_id_api_key_type_name"
        ),
        CheckConstraint(
            "(key_hash IS NULL) = (api_key_type IN ('github', 'slack')) "
            "AND (sealed_secret IS NULL) = (api_key_type NOT IN ('github', 'slack'))",
            name="kept_by_type",
        ),
        Index("ix_agent_api_keys_agent_id_created_at", "agent_id", text("created_at DESC"), text("id DESC")),
        Index("ix_agent_api_keys_key_hash", "key_hash", postgresql_where=text("key_hash IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    account_id: str
    agent_id: UUID = Field(foreign_key="agents.id")
    owner: str
    principal: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    name: str = Field(max_length=255)
    api_key_type: ApiKeyType = Field(sa_type=text_enum(ApiKeyType, "api_key_type"))  # pyright: ignore[reportArgumentType]
    # How it begins, by which its holder recognises it; of a signing secret nothing is shown.
    key_prefix: str | None = None
    # SHA-256, in hex: enough for what is random, and quick.
    key_hash: str | None = None
    # Made with AGENTEX_SECRET_KEY.
    sealed_secret: str | None = None
    created_at: datetime


class ApiKeyCreate(BaseModel):
    """A new key of the agent that is named by id or by name."""

    agent_id: str | None = Field(default=None, description="The agent's id; or give agent_name")
    agent_name: str | None = Field(default=None, description="The agent's name; or give agent_id")
    name: KeyName = Field(
        description="Unique among the agent's keys of this type. Of type github: the repository's full name, "
        "of type slack: the app's id, by which an incoming request finds its secret"
    )
    api_key_type: ApiKeyType = Field(default=ApiKeyType.EXTERNAL, description="What the key is for")
    api_key: SecretStr | None = Field(
        default=None,
        description="A key of yours, of 16 to 512 visible ASCII characters, or the signing secret, of 8 to "
        "512; one is made when it is left out, but for Slack, where it is the app's",
    )


class ApiKeyRead(BaseModel):
    """What is told of a key: all but the key."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    agent_id: UUID
    created_at: AwareDatetime
    name: str
    api_key_type: ApiKeyType
    key_prefix: str | None = Field(default=None, description="How the key begins; null for a signing secret")


class ApiKeyCreated(ApiKeyRead):
    """The answer to a creation, the only one that has the key."""

    api_key: str = Field(description="The key or signing secret: shown now and never again")


class WebhookTriggerCreate(BaseModel):
    """A webhook to an agent: a signing secret, and the URL to give to the source."""

    agent_name: str = Field(description="The agent that the webhook drives")
    source: ApiKeyType = Field(
        default=ApiKeyType.GITHUB, description="Who signs: github or slack; the other types sign nothing"
    )
    name: KeyName = Field(
        description="By which an incoming request finds the secret: the repository's full name (github) or "
        "the app's id (slack)"
    )
    forward_path: str = Field(
        max_length=1_000, description="The route of the agent that takes it, e.g. github-pr/42"
    )
    secret: SecretStr | None = Field(
        default=None,
        description="The signing secret, of 8 to 512 characters. GitHub: one is made when it is left out. "
        "Slack: the app's Signing Secret, which has to be given",
    )
    base_url: str | None = Field(
        default=None,
        max_length=1_000,
        description="Where the source reaches this API; AGENTEX_PUBLIC_URL of the server when it is left out",
    )


class WebhookTriggerCreated(BaseModel):
    """What to paste into the source's settings."""

    agent_name: str
    key_id: UUID
    name: str
    source: ApiKeyType
    secret: str = Field(description="The signing secret: shown now and never again")
    webhook_path: str
    webhook_url: str | None = Field(
        default=None, description="Null where neither base_url nor AGENTEX_PUBLIC_URL is known"
    )
