"""ACP's shapes: what is read, what is refused, what is sent."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from agentex.acp.messages import JsonObject, MessageContent

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
CONTENT: TypeAdapter[MessageContent] = TypeAdapter(MessageContent)


@pytest.mark.parametrize(
    "content",
    [
        {
            "type": "text",
            "author": "user",
            "style": "active",
            "format": "markdown",
            "content": "hi",
            "attachments": [{"file_id": "f", "name": "n", "size": 3, "type": "text/plain"}],
        },
        {"type": "data", "author": "agent", "style": "static", "data": {"a": [1]}},
        {
            "type": "tool_request",
            "author": "agent",
            "style": "static",
            "tool_call_id": "c",
            "name": "n",
            "arguments": {"x": 1},
        },
        {
            "type": "tool_response",
            "author": "agent",
            "style": "static",
            "tool_call_id": "c",
            "name": "n",
            "content": [1, None],
            "is_error": True,
        },
        {"type": "reasoning", "author": "agent", "style": "static", "summary": ["s"], "content": ["c"]},
    ],
    ids=lambda content: content["type"],
)
def test_content_of_each_type_survives_the_round_trip(content: JsonObject):
    assert CONTENT.validate_python(content).model_dump(mode="json") == content


def test_null_style_and_format_mean_the_defaults_and_unknown_fields_are_ignored():
    given = {"type": "text", "author": "user", "content": "hi", "style": None, "format": None, "new": 1}
    assert CONTENT.validate_python(given).model_dump(mode="json") == {
        "type": "text",
        "author": "user",
        "style": "static",
        "format": "plain",
        "content": "hi",
        "attachments": None,
    }


@pytest.mark.parametrize(
    "content",
    [
        {"author": "user", "content": "no type"},
        {"type": "video", "author": "user", "content": "unknown type"},
        {"type": "text", "author": "system", "content": "unknown author"},
        {"type": "data", "author": "agent", "data": [1]},
    ],
)
def test_malformed_content_is_refused(content: JsonObject):
    with pytest.raises(ValidationError):
        CONTENT.validate_python(content)
