"""Tasks as they are answered."""

from __future__ import annotations

from tests.support.api import Json, read_agent


def listed(task: Json) -> Json:
    """A task as lists have it: without its params, and without agents unless they are asked for."""
    return {**{key: value for key, value in task.items() if key != "params"}, "agents": None}


def with_agent(task: Json, agent: Json) -> Json:
    """A task as it is read by itself."""
    return {**task, "agents": [read_agent(agent)]}
