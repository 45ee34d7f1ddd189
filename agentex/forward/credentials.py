"""What opens the way to an agent: one of its external keys, or the signature of one of its webhooks.

The credential says whose request it is: the name in the URL may be one of several accounts'. So agents are
looked up together with their keys, and who has none that fits learns nothing, not even of the agent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agent_api_keys.models import AgentApiKey, ApiKeyType
from agentex.agents.models import Agent
from agentex.auth.keys import hash_key
from agentex.auth.principal import Principal
from agentex.database import JsonObject
from agentex.errors import BadRequest, Unauthorized
from agentex.forward.signatures import SLACK_WINDOW_SECONDS, is_recent, signed_by_github, signed_by_slack
from agentex.sealing import unseal
from agentex.settings import Settings

API_KEY_HEADER = "x-agent-api-key"
GITHUB_HEADER = "x-hub-signature-256"
SLACK_HEADER = "x-slack-signature"
SLACK_TIMESTAMP_HEADER = "x-slack-request-timestamp"
FORM = "application/x-www-form-urlencoded"
MAX_FORM_FIELDS = 100


@dataclass(frozen=True)
class Incoming:
    """A request to the agents of this name; header names in lower case."""

    agent_name: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Opened:
    """The agent that the request may go to, and for whom it goes."""

    agent: Agent
    principal: Principal
    # What Slack wants to hear back when a URL is entered: then the agent is not asked.
    challenge: str | None = None


async def opened(session: AsyncSession, settings: Settings, incoming: Incoming) -> Opened:
    """The agent that the request's credential opens.

    Raises Unauthorized without a credential and for one that opens nothing; BadRequest for a signed body that
    does not say whose it is; SecretUnreadable.
    """
    if API_KEY_HEADER in incoming.headers:
        return await _by_key(session, incoming)
    if GITHUB_HEADER in incoming.headers:
        return await _by_github(session, settings, incoming)
    if SLACK_HEADER in incoming.headers:
        return await _by_slack(session, settings, incoming)
    raise Unauthorized(
        f"give an external key of the agent in {API_KEY_HEADER}, or sign the request as GitHub "
        f"({GITHUB_HEADER}) or Slack ({SLACK_HEADER}) does"
    )


async def _by_key(session: AsyncSession, incoming: Incoming) -> Opened:
    hashed = col(AgentApiKey.key_hash) == hash_key(incoming.headers[API_KEY_HEADER])
    found = await _keys(session, incoming, ApiKeyType.EXTERNAL, hashed)
    if not found:
        raise Unauthorized(f"{API_KEY_HEADER} is not an external key of agent {incoming.agent_name!r}")
    return _opened(found[0])


async def _by_github(session: AsyncSession, settings: Settings, incoming: Incoming) -> Opened:
    document = _document(incoming)
    repository = document.get("repository")
    name = cast("JsonObject", repository).get("full_name") if isinstance(repository, dict) else None
    if not isinstance(name, str):
        raise BadRequest("the payload has no repository.full_name, by which its secret is found")
    signature = incoming.headers[GITHUB_HEADER]

    def fits(secret: str) -> bool:
        return signed_by_github(secret, incoming.body, signature)

    found = await _keys(session, incoming, ApiKeyType.GITHUB, col(AgentApiKey.name) == name)
    return _opened(_signer(settings, found, fits, GITHUB_HEADER))


async def _by_slack(session: AsyncSession, settings: Settings, incoming: Incoming) -> Opened:
    timestamp = incoming.headers.get(SLACK_TIMESTAMP_HEADER, "")
    if not is_recent(timestamp, time.time()):
        raise Unauthorized(
            f"{SLACK_TIMESTAMP_HEADER} is not a Unix time within {SLACK_WINDOW_SECONDS} s of now"
        )
    document = _document(incoming)
    challenge = document.get("challenge") if document.get("type") == "url_verification" else None
    app_id = document.get("api_app_id")
    if not isinstance(app_id, str) and not isinstance(challenge, str):
        raise BadRequest("the payload has no api_app_id, by which its secret is found")
    signature = incoming.headers[SLACK_HEADER]

    def fits(secret: str) -> bool:
        return signed_by_slack(secret, timestamp, incoming.body, signature)

    # A check of the URL names no app: any of the agent's may have sent it.
    of_app = [] if isinstance(challenge, str) else [col(AgentApiKey.name) == app_id]
    found = await _keys(session, incoming, ApiKeyType.SLACK, *of_app)
    key = _signer(settings, found, fits, SLACK_HEADER)
    return _opened(key, challenge if isinstance(challenge, str) else None)


# A key and its agent.
_Found = tuple[AgentApiKey, Agent]


async def _keys(
    session: AsyncSession, incoming: Incoming, kind: ApiKeyType, *conditions: Any
) -> Sequence[_Found]:
    """Keys of this type of the agents of that name, in every account."""
    statement = (
        select(AgentApiKey, Agent)
        .join(Agent, col(Agent.id) == col(AgentApiKey.agent_id))
        .where(
            col(Agent.name) == incoming.agent_name,
            col(Agent.deleted_at).is_(None),
            col(AgentApiKey.api_key_type) == kind,
            *conditions,
        )
        .order_by(col(AgentApiKey.id))
    )
    return (await session.exec(statement)).all()


def _signer(settings: Settings, found: Sequence[_Found], fits: Callable[[str], bool], header: str) -> _Found:
    for key, agent in found:
        if fits(unseal(settings, key.sealed_secret or "")):
            return key, agent
    raise Unauthorized(
        f"{header} is not a signature with a secret that is kept here for this agent and source"
    )


def _opened(found: _Found, challenge: str | None = None) -> Opened:
    key, agent = found
    return Opened(agent, Principal.model_validate(key.principal), challenge)


def _document(incoming: Incoming) -> JsonObject:
    """The payload: JSON, or a form with fields or with JSON in its field `payload`."""
    is_form = incoming.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM
    try:
        parsed: Any = _form(incoming.body) if is_form else json.loads(incoming.body)
    except (ValueError, RecursionError):
        raise BadRequest("the payload is neither JSON nor a form that holds some") from None
    if not isinstance(parsed, dict):
        raise BadRequest("the payload is not a JSON object")
    return cast("JsonObject", parsed)


def _form(body: bytes) -> Any:
    fields = parse_qs(body.decode(), max_num_fields=MAX_FORM_FIELDS)
    if "payload" in fields:
        return json.loads(fields["payload"][0])
    return {name: values[0] for name, values in fields.items()}
