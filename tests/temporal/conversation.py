"""A workflow as an agent of Temporal type has one for each task; the sandbox imports nothing else with it."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

STATE: dict[str, Any] = {"turn": 3, "waiting_for": None, "said": ["hi", "ho\U0001f600"]}


@workflow.defn
class Conversation:
    """As an agent of Temporal type has one for each task."""

    def __init__(self) -> None:
        self.done = False

    @workflow.run
    async def run(self) -> None:
        """Wait to be told."""
        await workflow.wait_condition(lambda: self.done)

    @workflow.signal
    def end(self) -> None:
        """Tell it."""
        self.done = True

    @workflow.query
    def state(self) -> dict[str, Any]:
        """What it is at."""
        return STATE

    @workflow.query
    def nothing(self) -> None:
        """No answer at all."""

    @workflow.query
    def number(self) -> float:
        """What JSON has no word for."""
        return float("nan")

    @workflow.query
    def secret(self) -> bytes:
        """Bytes, which are no JSON."""
        return b"\x00\x01"

    @workflow.query
    def long(self) -> str:
        """Longer than an answer may be."""
        return "x" * 2_000

    @workflow.query
    def broken(self) -> None:
        """A handler that fails."""
        raise ValueError("no state yet")

    @workflow.query(name="a/b c?")
    def odd(self) -> int:
        """A name that a path must encode."""
        return 1
