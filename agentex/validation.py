"""What is wrong with an input, in words: the field, its value shortened, what would be right.

Never the whole input, never a prompt, never where in our code it was noticed.
"""

from __future__ import annotations

import re
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
        "messages",
        "events",
        "operations",
        "writes",
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
_ID = re.compile(r"[0-9a-fA-F-]{32,36}", re.ASCII)
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
    field = _field(_without_words(location, error["type"]))
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


def _without_words(location: Sequence[str | int], kind: str) -> Sequence[str | int]:
    """The place without a key of the caller's own making below what is private: it may be anything."""
    if not _is_private(location) or len(location) < 2:
        return location
    parts = list(location)
    if kind == "extra_forbidden" and parts[-1] not in _PRIVATE:
        parts[-1] = "…"
    if "updates" in parts[:-1]:
        # By the ids of messages, unless they are none.
        key = parts.index("updates") + 1
        parts[key] = parts[key] if _ID.fullmatch(str(parts[key])) else "…"
    return parts


def _is_private(location: Sequence[str | int]) -> bool:
    # What stands in a URL is in every proxy's log.
    if location[:1] == ("query",):
        return False
    is_whole = len(location) <= 1 and all(part in _PLACES for part in location)
    return is_whole or any(part in _PRIVATE for part in location)


def _shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
