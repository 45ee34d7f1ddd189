"""Passes a request on to a route of an agent's own, for who made the key that it carries.

No connection to the database is held while the agent is awaited.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import Response
from fastapi.responses import PlainTextResponse
from starlette.types import Receive

from agentex.acp.client import OwnCall
from agentex.agents.service import address, agent_ref
from agentex.auth.authorize import Operation, require
from agentex.forward.answer import ForwardedAnswer
from agentex.forward.credentials import Incoming, Opened, opened
from agentex.forward.headers import to_agent
from agentex.noted import Audited, Note
from agentex.resources import Resources
from agentex.rpc.respond import CLIENT_GONE, ClientGone, while_connected


@dataclass(frozen=True)
class Own:
    """What is asked of the agent: a method, and a path and query that have been checked."""

    method: str
    path: str
    query: str


async def forward(
    resources: Resources, incoming: Incoming, own: Own, receive: Receive, *, note: Note
) -> Response:
    """The agent's answer, as soon as it begins; raises what `opened` does and AgentCallFailed's classes."""
    found = await _allowed(resources, incoming, note)
    if found.challenge is not None:
        return PlainTextResponse(found.challenge, headers={"x-content-type-options": "nosniff"})
    seconds = resources.settings.forward_timeout_seconds
    deadline = asyncio.get_running_loop().time() + seconds
    call = OwnCall(
        acp_url=address(found.agent),
        method=own.method,
        path=own.path,
        query=own.query,
        headers=to_agent(incoming.headers),
        body=incoming.body,
        timeout_seconds=seconds,
    )
    try:
        async with while_connected(receive):
            answer = await resources.acp.open_own(call)
    except ClientGone:
        return Response(status_code=CLIENT_GONE)
    return ForwardedAnswer(answer, deadline)


async def _allowed(resources: Resources, incoming: Incoming, note: Note) -> Opened:
    """The agent that is opened; who made the key may still execute it."""
    async with resources.db.read() as session:
        found = await opened(session, resources.settings, incoming)
        note.principal = found.principal
        note.concerns(Audited.AGENT, found.agent.id)
        agent = agent_ref(found.agent)
        await require(resources.authz, session, found.principal, Operation.EXECUTE, agent)
    return found
