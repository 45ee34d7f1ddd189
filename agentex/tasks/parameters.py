"""What callers write into the query string, read and checked."""

from __future__ import annotations

import json
from typing import Any, cast

from agentex.database import JsonObject, storable
from agentex.errors import BadRequest, InvalidInput
from agentex.tasks.models import TaskStatus

_LISTED_STATUSES = [status for status in TaskStatus if status is not TaskStatus.DELETED]
# Longer than any filter that was seen; what a URL may have is little more.
_MAX_METADATA_CHARACTERS = 8_000


def statuses_of(given: list[str] | None) -> frozenset[TaskStatus] | None:
    """The statuses of a list; raises InvalidInput for what is none, BadRequest for DELETED."""
    names = _names(given)
    if names is None:
        return None
    wrong = [name for name in names if name not in list(TaskStatus)]
    if wrong:
        raise InvalidInput("status", f"{wrong[0][:80]!r} is none of {', '.join(_LISTED_STATUSES)}")
    statuses = frozenset(TaskStatus(name) for name in names)
    if TaskStatus.DELETED in statuses:
        raise BadRequest("status is DELETED: deleted tasks are in no list")
    return statuses


def wants_agents(given: list[str] | None) -> bool:
    """Whether the agents are to come with the tasks; raises InvalidInput for any other relationship."""
    wrong = [name for name in _names(given) or [] if name != "agents"]
    if wrong:
        raise InvalidInput("relationships", f"{wrong[0][:80]!r} is none of agents")
    return bool(given)


def metadata_of(given: str | None) -> JsonObject | None:
    """The object that metadata is to hold; raises InvalidInput for what is none."""
    if given is None:
        return None
    if len(given) > _MAX_METADATA_CHARACTERS:
        raise InvalidInput("task_metadata", f"is longer than {_MAX_METADATA_CHARACTERS} characters")
    try:
        wanted: Any = json.loads(given)
        # NaN, Infinity and 1e999, none of which JSON has.
        json.dumps(wanted, allow_nan=False)
        is_storable = storable(wanted) == wanted
    except (ValueError, RecursionError):
        raise InvalidInput("task_metadata", 'is not JSON; give an object such as {"team": "a"}') from None
    if not isinstance(wanted, dict):
        raise InvalidInput("task_metadata", 'is not a JSON object; give one such as {"team": "a"}')
    if not is_storable:
        raise InvalidInput("task_metadata", "holds NUL or half a surrogate pair, which no metadata can hold")
    return cast("JsonObject", wanted)


def _names(given: list[str] | None) -> list[str] | None:
    """The names of parameters that are given several times, comma-joined, or both."""
    return None if given is None else [name.strip() for joined in given for name in joined.split(",")]
