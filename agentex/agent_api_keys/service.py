"""Keys of agents: make, list, find, delete; and what a webhook needs in one go."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from agentex.addresses import is_base_url
from agentex.agent_api_keys.credentials import Credential, credential
from agentex.agent_api_keys.models import (
    SIGNING_TYPES,
    AgentApiKey,
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyRead,
    ApiKeyType,
    WebhookTriggerCreate,
    WebhookTriggerCreated,
)
from agentex.agents import service as agents
from agentex.agents.models import Agent
from agentex.agents.service import agent_ref
from agentex.auth.authorize import Operation, ResourceRef, ResourceType, hidden_as, require
from agentex.auth.lists import seen_by
from agentex.auth.principal import Principal
from agentex.errors import AlreadyExists, BadRequest, InvalidInput, NotFound
from agentex.forward_paths import forward_path, own_path
from agentex.ids import new_id, parse_id
from agentex.resources import Resources


@dataclass(frozen=True)
class OfAgent:
    """Which agent a request names: by id, or by name."""

    agent_id: str | None = None
    agent_name: str | None = None


@dataclass(frozen=True)
class NamedKey:
    """A key by its name, which is unique among the agent's keys of one type."""

    of: OfAgent
    name: str
    kind: ApiKeyType


@dataclass(frozen=True)
class _New:
    """A key that is to be made."""

    name: str
    kind: ApiKeyType
    credential: Credential


def key_ref(key: AgentApiKey) -> ResourceRef:
    """The key as a resource (wire.md §4)."""
    return ResourceRef(ResourceType.API_KEY, str(key.id), key.account_id, key.owner)


async def create(resources: Resources, principal: Principal, body: ApiKeyCreate) -> ApiKeyCreated:
    """Make a key; raises AlreadyExists for a name that one of the agent's keys of this type has."""
    agent = await _agent_to_update(resources, principal, OfAgent(body.agent_id, body.agent_name))
    given = body.api_key.get_secret_value() if body.api_key else None
    made = credential(resources.settings, body.api_key_type, given, "api_key")
    key = await _insert(resources, principal, agent, _New(body.name, body.api_key_type, made))
    return ApiKeyCreated(**ApiKeyRead.model_validate(key).model_dump(), api_key=made.text)


async def create_trigger(
    resources: Resources, principal: Principal, body: WebhookTriggerCreate
) -> WebhookTriggerCreated:
    """Keep a source's signing secret, and say where it is to send; as create otherwise."""
    agent = await _agent_to_update(resources, principal, OfAgent(agent_name=body.agent_name))
    if body.source not in SIGNING_TYPES:
        raise BadRequest(f"source is {body.source}; only github and slack sign their webhooks")
    path = forward_path(agent.name, own_path(body.forward_path.lstrip("/"), "forward_path"))
    base_url = body.base_url or resources.settings.public_url
    if base_url is not None and not is_base_url(base_url):
        raise InvalidInput("base_url", f"{base_url[:80]!r} is not an http(s) URL without query and fragment")
    given = body.secret.get_secret_value() if body.secret else None
    made = credential(resources.settings, body.source, given, "secret")
    key = await _insert(resources, principal, agent, _New(body.name, body.source, made))
    return WebhookTriggerCreated(
        agent_name=agent.name,
        key_id=key.id,
        name=key.name,
        source=key.api_key_type,
        secret=made.text,
        webhook_path=path,
        webhook_url=f"{base_url.rstrip('/')}{path}" if base_url else None,
    )


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    of: OfAgent,
    *,
    limit: int,
    page_number: int,
) -> list[AgentApiKey]:
    """An agent's keys, newest first; pages count from 1."""
    agent = await _agent(session, resources, principal, of)
    seen = await resources.authz.visible(session, principal, ResourceType.API_KEY)
    statement = (
        _kept(principal)
        .where(
            col(AgentApiKey.agent_id) == agent.id,
            seen_by(seen, id="agent_api_keys.id", owner="agent_api_keys.owner"),
        )
        .order_by(col(AgentApiKey.created_at).desc(), col(AgentApiKey.id).desc())
    )
    return list((await session.exec(statement.limit(limit).offset((page_number - 1) * limit))).all())


async def get(session: AsyncSession, resources: Resources, principal: Principal, key_id: str) -> AgentApiKey:
    """One key of an agent that is not deleted."""
    statement = (
        _kept(principal)
        .join(Agent, col(Agent.id) == col(AgentApiKey.agent_id))
        .where(col(AgentApiKey.id) == parse_id(key_id, "api_key"), col(Agent.deleted_at).is_(None))
    )
    key = (await session.exec(statement)).one_or_none()
    if key is None:
        raise NotFound(f"api_key {key_id!r} not found")
    await require(resources.authz, session, principal, Operation.READ, key_ref(key))
    return key


async def get_by_name(
    session: AsyncSession, resources: Resources, principal: Principal, named: NamedKey
) -> AgentApiKey:
    """The same by the agent, the key's type and its name."""
    agent = await _agent(session, resources, principal, named.of)
    statement = _kept(principal).where(
        col(AgentApiKey.agent_id) == agent.id,
        col(AgentApiKey.api_key_type) == named.kind,
        col(AgentApiKey.name) == named.name,
    )
    key = (await session.exec(statement)).one_or_none()
    absent = NotFound(f"agent {agent.name!r} has no key {named.name!r} of type {named.kind}")
    if key is None:
        raise absent
    with hidden_as(absent):
        await require(resources.authz, session, principal, Operation.READ, key_ref(key))
    return key


async def remove(resources: Resources, principal: Principal, key: AgentApiKey) -> None:
    """Delete a key: from then on it opens nothing."""
    async with resources.db.read() as session:
        await require(resources.authz, session, principal, Operation.DELETE, key_ref(key))
    async with resources.db.single() as session:
        gone = await session.exec(
            delete(AgentApiKey)
            .where(col(AgentApiKey.id) == key.id, col(AgentApiKey.account_id) == principal.account_id)
            .returning(col(AgentApiKey.id))
        )
        if gone.first() is None:
            raise NotFound(f"api_key {str(key.id)!r} not found")


async def remove_of_agent(session: AsyncSession, principal: Principal, agent_id: UUID) -> None:
    """Delete the keys of an agent that is being deleted."""
    await session.exec(delete(AgentApiKey).where(col(AgentApiKey.agent_id) == agent_id))


def _kept(principal: Principal) -> SelectOfScalar[AgentApiKey]:
    return select(AgentApiKey).where(col(AgentApiKey.account_id) == principal.account_id)


async def _agent(session: AsyncSession, resources: Resources, principal: Principal, of: OfAgent) -> Agent:
    """The agent that is named, for those who may read it."""
    if (of.agent_id is None) == (of.agent_name is None):
        raise BadRequest("give agent_id or agent_name, and not both")
    if of.agent_id is not None:
        return await agents.get(session, resources.authz, principal, of.agent_id)
    return await agents.get_by_name(session, resources.authz, principal, of.agent_name or "")


async def _agent_to_update(resources: Resources, principal: Principal, of: OfAgent) -> Agent:
    """The same for those who may change it: who has a key acts in its maker's name."""
    async with resources.db.read() as session:
        agent = await _agent(session, resources, principal, of)
        await require(resources.authz, session, principal, Operation.UPDATE, agent_ref(agent))
    return agent


async def _insert(resources: Resources, principal: Principal, agent: Agent, new: _New) -> AgentApiKey:
    async with resources.db.begin() as session:
        await agents.find(session, principal, agent.id, hold=True)
        statement = insert(AgentApiKey).values(
            id=new_id(),
            account_id=principal.account_id,
            agent_id=agent.id,
            owner=principal.creator,
            principal=principal.model_dump(mode="json"),
            name=new.name,
            api_key_type=new.kind,
            key_prefix=new.credential.key_prefix,
            key_hash=new.credential.key_hash,
            sealed_secret=new.credential.sealed_secret,
            created_at=func.clock_timestamp(),
        )
        statement = statement.on_conflict_do_nothing(
            constraint="uq_agent_api_keys_agent_id_api_key_type_name"
        ).returning(AgentApiKey)
        key = (await session.exec(statement)).scalar_one_or_none()
    if key is None:
        what = f"agent {agent.name!r} already has a key {new.name!r} of type {new.kind}"
        raise AlreadyExists(f"{what}; delete it first")
    return key
