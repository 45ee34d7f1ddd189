"""The OpenAPI document: FastAPI's, with the errors that any route may answer in the one shape they have."""

from __future__ import annotations

from typing import Any, cast

from agentex.auth.keys import AGENT_KEY_HEADER, API_KEY_HEADER
from agentex.web.examples import EXAMPLES, TAGS
from agentex.web.permissions import PERMISSIONS
from agentex.web.problems import Problem

JsonSchema = dict[str, Any]

_DESCRIPTIONS = {
    "400": "The request cannot be carried out as things stand; a repeat is useless",
    "401": "No credential, or one that opens nothing here",
    "403": "The caller may read this but not do that to it",
    "404": "There is nothing with this id or name that the caller can see",
    "408": "The body did not arrive in time; repeat it",
    "413": "The body is larger than this server accepts",
    "414": "The path or the query is longer than this server accepts",
    "422": "A field is not valid; the message names it, its value and what would be right",
    "429": "Too many requests; repeat it after Retry-After seconds",
    "431": "There are more or larger headers than this server accepts",
    "503": "A part this request needs does not answer; repeat it after Retry-After seconds",
}
# One of them; with AGENTEX_AUTH=none nothing is looked at.
_SCHEMES: JsonSchema = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (agx_…), or whatever else AGENTEX_AUTH takes",
    },
    "api_key": {"type": "apiKey", "in": "header", "name": API_KEY_HEADER, "description": "An API key"},
    "agent_key": {
        "type": "apiKey",
        "in": "header",
        "name": AGENT_KEY_HEADER,
        "description": "The key of an agent, which its SDK takes from AGENT_API_KEY",
    },
}
# Who may call these is not decided by AGENTEX_AUTH; webhooks are signed, which no scheme can say.
_OF_THEIR_OWN: dict[str, list[JsonSchema]] = {"health": [], "forward": [{"agent_key": []}, {}]}


def with_problems(document: JsonSchema) -> JsonSchema:
    """Declare on each operation the errors it can answer, all with the Problem schema."""
    schemas = cast("JsonSchema", document.setdefault("components", {}).setdefault("schemas", {}))
    schemas["Problem"] = Problem.model_json_schema()
    document["components"]["securitySchemes"] = _SCHEMES
    document["security"] = [*({name: []} for name in _SCHEMES), {}]
    # FastAPI's own validation errors never leave this server.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if (needed := PERMISSIONS.get(f"{method.upper()} {path}")) is not None:
                operation["x-agentex-permissions"] = list(needed)
            _name_events(operation)
            if "health" not in operation["tags"]:
                operation["responses"].update(_errors(operation))
            if operation["tags"][0] in _OF_THEIR_OWN:
                operation["security"] = _OF_THEIR_OWN[operation["tags"][0]]
            _leave_out_null(operation)
            _show_body(operation)
    document["tags"] = [{"name": name, "description": what} for name, what in TAGS.items()]
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _name_events(operation: JsonSchema) -> None:
    """Server-sent events are what their data is: FastAPI calls them a string as well, which they are not."""
    for response in operation["responses"].values():
        schema = response.get("content", {}).get("text/event-stream", {}).get("schema", {})
        if "$ref" in schema:
            schema.pop("type", None)


def _errors(operation: JsonSchema) -> JsonSchema:
    # 404 everywhere: lists are asked for by the ids of tasks, agents and schedules, too.
    statuses = {"400", "401", "403", "404", "414", "422", "429", "431", "503"}
    if "requestBody" in operation:
        statuses |= {"408", "413"}
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in sorted(statuses)}


def _show_body(operation: JsonSchema) -> None:
    for media in operation.get("requestBody", {}).get("content", {}).values():
        name = media["schema"].get("$ref", "").rpartition("/")[2]
        if name in EXAMPLES:
            media["example"] = EXAMPLES[name]


def _leave_out_null(operation: JsonSchema) -> None:
    """A body that may be left out is no body that may be null: generated clients would send null, or fail."""
    for media in operation.get("requestBody", {}).get("content", {}).values():
        kinds = media["schema"].get("anyOf", [])
        some = [kind for kind in kinds if kind != {"type": "null"}]
        if len(some) == 1 and len(kinds) > 1:
            media["schema"] = some[0]
