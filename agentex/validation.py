"""What is wrong with an input, in words: the field, its value shortened, what would be right.

Never the whole input, never a prompt, never where in our code it was noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Enough to recognise a value by.
SHOWN_CHARACTERS = 80
# A message of pydantic's may quote what it was given.
MESSAGE_CHARACTERS = 300
# Errors named in one message; a list of 1,000 wrong items needs no 1,000 lines.
SHOWN_ERRORS = 10
# Prompts, parameters and outputs: what stands below these is never quoted.
_PRIVATE = frozenset(
    {
        "content",
        "contents",
        "updates",
        "state",
        "initial_input",
        "params",
        "task_params",
        "task_metadata",
        "registration_metadata",
        "data",
        "input",
        "output",
        "checkpoint",
        "metadata",
        "filter_metadata",
        "blob",
        # Credentials.
        "api_key",
        "secret",
    }
)
_PLACES = frozenset({"body", "query", "path", "header"})


def describe(errors: Sequence[Mapping[str, Any]]) -> str:
    """One line for pydantic's errors (`ValidationError.errors()`), e.g. `limit is 0: Input should be …`."""
    shown = [_describe_one(error) for error in errors[:SHOWN_ERRORS]]
    if len(errors) > SHOWN_ERRORS:
        shown.append(f"and {len(errors) - SHOWN_ERRORS} more")
    return "; ".join(shown)


def _describe_one(error: Mapping[str, Any]) -> str:
    location: Sequence[str | int] = error["loc"]
    message, value = _shortened(error["msg"], MESSAGE_CHARACTERS), error.get("input")
    if error["type"] == "json_invalid":
        return f"body is not JSON: {error['ctx']['error']} at character {location[-1]}"
    if isinstance(value, bytes):
        return "body is not JSON: send it with content-type application/json"
    field = _field(location)
    if error["type"] == "value_error":
        # Raised by a validator of ours, which names the value where it may be shown.
        message = message.removeprefix("Value error, ")
        return f"{field}: {message}" if field else message
    if error["type"] == "missing" or _is_private(location) or not isinstance(value, str | int | float):
        return f"{field}: {message}"
    return f"{field} is {_shortened(repr(value), SHOWN_CHARACTERS)}: {message}"


def _field(location: Sequence[str | int]) -> str:
    inner = location[1:] if location and location[0] in _PLACES and len(location) > 1 else location
    return _shortened(".".join(str(part) for part in inner), SHOWN_CHARACTERS)


def _is_private(location: Sequence[str | int]) -> bool:
    # What stands in a URL is in every proxy's log.
    if location[:1] == ("query",):
        return False
    is_whole = len(location) <= 1 and all(part in _PLACES for part in location)
    return is_whole or any(part in _PRIVATE for part in location)


def _shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
