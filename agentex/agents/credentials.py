"""Who may register an agent under which name, and which key the agent gets by it."""

from __future__ import annotations

import re

from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents.models import Agent
from agentex.auth.authorize import Operation, ResourceRef, ResourceType, type_ref
from agentex.auth.keys import AGENT_KEY_HEADER
from agentex.auth.principal import Principal, agent_principal
from agentex.auth.service import KeyWanted, is_agent_name_kept, make_key, take_agent_name
from agentex.errors import Forbidden, InvalidInput
from agentex.resources import Resources
from agentex.sealing import seal
from agentex.settings import Auth, Settings

KEY_NAME = "made when the agent was registered"
# What can go back in a header as it came.
_SENDABLE = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)


def agent_ref(agent: Agent) -> ResourceRef:
    """The agent as a resource."""
    return ResourceRef(ResourceType.AGENT, str(agent.id), agent.account_id, agent.owner)


def sealed(settings: Settings, agent_key: str | None) -> str | None:
    """The credential that an agent has presented, as it may be kept; None without, and without auth.

    Only for one that has opened something: what is not checked is not kept.
    """
    if agent_key is None or settings.auth is Auth.NONE:
        return None
    if not _SENDABLE.fullmatch(agent_key):
        raise InvalidInput(AGENT_KEY_HEADER, "is not 1 to 4096 visible ASCII characters")
    return seal(settings, agent_key)


async def require_register(
    session: AsyncSession, resources: Resources, principal: Principal, name: str, known: Agent | None
) -> bool:
    """Raise Forbidden unless the caller may register an agent under this name, new or known.

    Returns whether it may also take a name that is kept for whoever holds a key of it. An agent may
    register itself and nobody else. `session` as in authorize.require.
    """
    if principal.agent_name is not None and principal.agent_name != name:
        raise Forbidden(
            f"agent {name!r} cannot be registered with a key of agent {principal.agent_name!r}: an agent "
            "registers itself only"
        )
    if known is not None:
        await _require(session, resources, principal, (Operation.UPDATE, agent_ref(known)), name)
    elif principal.agent_name is not None:
        # As if the agent were there: it is its own owner, though it has no leave to make others.
        own = ResourceRef(ResourceType.AGENT, "*", principal.account_id, principal.creator)
        await _require(session, resources, principal, (Operation.CREATE, own), name)
    else:
        await _require(
            session, resources, principal, (Operation.CREATE, type_ref(ResourceType.AGENT, principal)), name
        )
    is_new_name = known is None or known.name != name
    return not is_new_name or await _may_take(session, resources, principal, name)


async def first_key(
    session: AsyncSession, settings: Settings, principal: Principal, agent: Agent, may_take: bool
) -> str | None:
    """The key that is made for a new agent which somebody else has registered; None for all others.

    Raises Forbidden when a key of this name has been made for somebody meanwhile.
    """
    if settings.auth is Auth.NONE or principal.agent_name == agent.name:
        return None
    member = agent_principal(agent.account_id, agent.name)
    if not await take_agent_name(session, member) and not may_take:
        raise _is_kept(agent.name)
    key, made = await make_key(session, settings, KeyWanted(member, KEY_NAME, principal.creator))
    await session.exec(update(Agent).where(col(Agent.id) == agent.id).values(sealed_key=key.sealed_key))
    return made.text


async def _require(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    asked: tuple[Operation, ResourceRef],
    name: str,
) -> None:
    """Forbidden in any case: that there is an agent of a name shows when one tries to take the name."""
    operation, subject = asked
    decision = await resources.authz.authorize(session, principal, operation, subject)
    if not decision.allowed:
        stands = "is there already" if operation is Operation.UPDATE else "is new"
        raise Forbidden(
            f"agent {name!r} cannot be registered by {principal.creator}: it {stands}, and agent.{operation} "
            f"is denied: {decision.rule}"
        )


async def _may_take(session: AsyncSession, resources: Resources, principal: Principal, name: str) -> bool:
    """Whether the caller may have a name that is kept; raises Forbidden where it is and it may not."""
    if resources.settings.auth is Auth.NONE or principal.agent_name == name:
        return True
    subject = type_ref(ResourceType.MEMBER, principal)
    decision = await resources.authz.authorize(session, principal, Operation.UPDATE, subject)
    if not decision.allowed and await is_agent_name_kept(session, principal.account_id, name):
        raise _is_kept(name)
    return decision.allowed


def _is_kept(name: str) -> Forbidden:
    return Forbidden(
        f"agent {name!r} cannot be registered: a key of that name has been made, so the name is kept for who "
        "holds it; only an admin takes it"
    )
