"""/agent_api_keys: keys of agents, and webhooks in one go."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from agentex.agent_api_keys import service
from agentex.agent_api_keys.models import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyRead,
    ApiKeyType,
    WebhookTriggerCreate,
    WebhookTriggerCreated,
)
from agentex.agent_api_keys.service import NamedKey, OfAgent
from agentex.deps import Caller, Limit, PageNumber, ReadSession, ResourcesDep
from agentex.noted import Audited, note_of

router = APIRouter(prefix="/agent_api_keys", tags=["agent_api_keys"])


async def _of_agent(
    agent_id: Annotated[str | None, Query(description="The agent's id; or give agent_name")] = None,
    agent_name: Annotated[str | None, Query(description="The agent's name; or give agent_id")] = None,
) -> OfAgent:
    return OfAgent(agent_id, agent_name)


OfAgentDep = Annotated[OfAgent, Depends(_of_agent)]
Kind = Annotated[ApiKeyType, Query(description="The type of the key")]


@router.post("")
async def create_agent_api_key(body: ApiKeyCreate, resources: ResourcesDep, caller: Caller) -> ApiKeyCreated:
    """Make a key of an agent. The key is shown in this answer only."""
    return await service.create(resources, caller, body)


@router.post("/webhook-trigger")
async def create_webhook_trigger(
    body: WebhookTriggerCreate, resources: ResourcesDep, caller: Caller, request: Request
) -> WebhookTriggerCreated:
    """Let GitHub or Slack call a route of an agent: keep the signing secret, and say which URL to paste.

    What comes in there is passed on when it is signed with that secret. The secret is shown in this answer
    only.
    """
    created = await service.create_trigger(resources, caller, body)
    note_of(request).concerns(Audited.AGENT_API_KEY, created.key_id)
    return created


@router.get("")
async def list_agent_api_keys(
    of: OfAgentDep,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    limit: Limit = 50,
    page_number: PageNumber = 1,
) -> list[ApiKeyRead]:
    """The keys of an agent, newest first."""
    found = await service.list_page(session, resources, caller, of, limit=limit, page_number=page_number)
    return [ApiKeyRead.model_validate(key) for key in found]


@router.get("/name/{name:path}")
async def get_agent_api_key_by_name(
    name: str,
    of: OfAgentDep,
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    api_key_type: Kind = ApiKeyType.EXTERNAL,
) -> ApiKeyRead:
    """One key of an agent by its type and name."""
    named = NamedKey(of, name, api_key_type)
    return ApiKeyRead.model_validate(await service.get_by_name(session, resources, caller, named))


@router.delete("/name/{name:path}")
async def delete_agent_api_key_by_name(
    name: str,
    of: OfAgentDep,
    resources: ResourcesDep,
    caller: Caller,
    api_key_type: Kind = ApiKeyType.EXTERNAL,
) -> str:
    """Delete one key of an agent by its type and name; it opens nothing from then on."""
    async with resources.db.read() as session:
        key = await service.get_by_name(session, resources, caller, NamedKey(of, name, api_key_type))
    await service.remove(resources, caller, key)
    return f"Agent API key '{key.name}' was deleted"


@router.get("/{key_id}")
async def get_agent_api_key(
    key_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> ApiKeyRead:
    """One key by id."""
    return ApiKeyRead.model_validate(await service.get(session, resources, caller, key_id))


@router.delete("/{key_id}")
async def delete_agent_api_key(key_id: str, resources: ResourcesDep, caller: Caller) -> str:
    """Delete one key by id; it opens nothing from then on."""
    async with resources.db.read() as session:
        key = await service.get(session, resources, caller, key_id)
    await service.remove(resources, caller, key)
    return f"Agent API key {key.id} was deleted"
