"""The OpenAPI document: FastAPI's, with the errors that any route may answer in the one shape they have."""

from __future__ import annotations

from typing import Any, cast

from agentex.web.problems import Problem

JsonSchema = dict[str, Any]

_DESCRIPTIONS = {
    "400": "The request cannot be carried out as things stand; a repeat is useless",
    "403": "The caller may read this but not do that to it",
    "404": "There is nothing with this id or name that the caller can see",
    "413": "The body is larger than this server accepts",
    "422": "A field is not valid; the message names it, its value and what would be right",
    "503": "A part this request needs does not answer; repeat it after Retry-After seconds",
}


def with_problems(document: JsonSchema) -> JsonSchema:
    """Declare on each operation the errors it can answer, all with the Problem schema."""
    schemas = cast("JsonSchema", document.setdefault("components", {}).setdefault("schemas", {}))
    schemas["Problem"] = Problem.model_json_schema()
    # FastAPI's own validation errors never leave this server.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _name_events(operation)
            if "health" not in operation["tags"]:
                operation["responses"].update(_errors(path, method, operation))
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _name_events(operation: JsonSchema) -> None:
    """Server-sent events are what their data is: FastAPI calls them a string as well, which they are not."""
    for response in operation["responses"].values():
        schema = response.get("content", {}).get("text/event-stream", {}).get("schema", {})
        if "$ref" in schema:
            schema.pop("type", None)


def _errors(path: str, method: str, operation: JsonSchema) -> JsonSchema:
    statuses = ["400", "403", "422", "503"]
    if "{" in path or method != "get":
        statuses.append("404")
    if "requestBody" in operation:
        statuses.append("413")
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in sorted(statuses)}
