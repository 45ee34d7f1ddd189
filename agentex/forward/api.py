"""/agents/forward: requests to routes of an agent's own, from outside."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Path, Request, Response

from agentex.deps import ResourcesDep
from agentex.errors import BadRequest
from agentex.forward import service
from agentex.forward.credentials import Incoming
from agentex.forward.service import Own
from agentex.forward_paths import FORWARD_PREFIX, own_path
from agentex.noted import note_of

router = APIRouter(tags=["forward"])

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# RFC 3986 §3.4, and no fragment; what else there is, a client has to encode.
_QUERY = re.compile(r"[\x21\x22\x24-\x7e]*", re.ASCII)
# Anything; generators of clients know no "*/*".
_ANYTHING: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_PROBLEM: dict[str, Any] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What the agent answers, as it arrives; its other statuses go through as well",
        "content": _ANYTHING,
    },
    401: {"description": "No credential, or one that opens nothing here", "content": _PROBLEM},
    502: {"description": "The agent is away, or did not answer HTTP as it should", "content": _PROBLEM},
    504: {"description": "The agent has the request and did not answer", "content": _PROBLEM},
}


async def _forward(
    agent_name: str,
    path: Annotated[str, Path(description="A route of the agent's own, behind its address")],
    request: Request,
    resources: ResourcesDep,
) -> Response:
    """A request to a route of the agent's own.

    It is passed on when it carries one of the agent's external keys in `x-agent-api-key`, or is signed as
    GitHub (`x-hub-signature-256`) or Slack (`x-slack-signature`) does with a secret that is kept for the
    agent.
    """
    own = Own(request.method, own_path(_raw_path(request, agent_name), "path"), _query(request))
    incoming = Incoming(agent_name, request.headers, await request.body())
    return await service.forward(resources, incoming, own, request.receive, note=note_of(request))


for method in METHODS:
    router.add_api_route(
        FORWARD_PREFIX + "{agent_name}/{path:path}",
        _forward,
        methods=[method],
        name=f"forward_{method.lower()}_to_agent",
        summary=f"Forward {method} to an agent",
        response_class=Response,
        responses=_ANSWERS,
        openapi_extra=None if method == "GET" else {"requestBody": {"content": _ANYTHING}},
    )


def _raw_path(request: Request, agent_name: str) -> str:
    """The path behind the agent's name as it was sent: decoded, an encoded slash is like any other."""
    sent: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    _, _, behind = sent.decode("latin-1").partition(FORWARD_PREFIX)
    name, _, path = behind.partition("/")
    if unquote(name) != agent_name:
        raise BadRequest(f"the path has no agent's name behind {FORWARD_PREFIX}")
    return path


def _query(request: Request) -> str:
    query: str = request.scope["query_string"].decode("latin-1")
    if not _QUERY.fullmatch(query):
        raise BadRequest("the query holds characters that have to be percent-encoded")
    return query
