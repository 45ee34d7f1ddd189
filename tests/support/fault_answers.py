"""What the API says while something it needs is away."""

from __future__ import annotations

import asyncio

from tests.support.acp_replies import JsonObject
from tests.support.fault_agent import FaultAgent
from tests.support.fault_stack import Answer, Stack

# Status, whether it says when to come back, the problem's code, and whether it says more than it should.
Told = tuple[int, bool, str, bool]
DATABASE_UNAVAILABLE: Told = (503, True, "database-unavailable", False)


async def ask_everything(
    stack: Stack, agent: FaultAgent, schedule: JsonObject, *, seconds: float = 30
) -> dict[str, Told]:
    """Reads and writes of each kind, all at once, and how each was answered."""
    path = f"/agents/{agent.id}/schedules"
    own = f"{path}/{schedule['id']}"
    calls: list[tuple[str, str, object]] = [
        ("GET", f"/agents/{agent.id}", None),
        ("GET", path, None),
        ("POST", path, {"name": "new", "interval_seconds": 60, "initial_input": {"content": "Go"}}),
        ("PATCH", own, {"description": "new"}),
        ("POST", f"{own}/pause", None),
        ("DELETE", own, None),
        ("GET", f"/runs?schedule_id={schedule['id']}", None),
        ("GET", "/tasks", None),
    ]
    answers = await asyncio.gather(*[stack.call(*call, seconds=seconds) for call in calls])
    return {
        f"{method} {where}": told(answer) for (method, where, _), answer in zip(calls, answers, strict=True)
    }


def told(answer: Answer) -> Told:
    """What a client sees of an answer that is not what it asked for."""
    return (
        answer.status,
        int(answer.headers.get("retry-after", 0)) > 0,
        str(answer.json["type"]).rpartition(":")[2] if answer.status >= 400 else "",
        "Traceback" in answer.text or ".py" in answer.text,
    )
