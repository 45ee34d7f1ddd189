"""What is recorded: each play is a workflow with the answers that its activity gives, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from temporalio.exceptions import ApplicationError

from agentex.runs.workflow import PageResult
from agentex.schedules.workflow import LanePages, OpenResult

BATCH = "00000000-0000-4000-8000-00000000000{}"
# Long enough for a timer in the history, short enough to wait for.
SOON_SECONDS = 0.01

Hang: TypeAlias = Literal["hang"]


@dataclass(frozen=True)
class TickPlay:
    """A tick, started by the Schedule of the shared minute."""

    name: str
    answers: Sequence[OpenResult | ApplicationError]


@dataclass(frozen=True)
class PagePlay:
    """A page. An answer that hangs is one of a worker that died: no heartbeat, no end.

    rounds_per_history: in place of the workflow's own number, whose history would have 2,200 events.
    """

    name: str
    answers: Sequence[PageResult | ApplicationError | Hang]
    rounds_per_history: int | None = None


def opened(name: str, round_: int, *, deliver: int, answer: int = 0, more: bool = False) -> OpenResult:
    """One round: that many pages in each lane."""
    counts = {"deliver": deliver, "answers": answer}
    lanes = [
        LanePages(lane.removesuffix("s"), count, f"{name}-{lane}") for lane, count in counts.items() if count
    ]
    return OpenResult(BATCH.format(round_), lanes, more)


def failed() -> ApplicationError:
    """What an activity raises that Temporal is to repeat."""
    return ApplicationError("the database is away", type="DatabaseAway")


AGAIN = PageResult(next_attempt_in_seconds=SOON_SECONDS)
DONE = PageResult()

TICKS = [
    TickPlay("tick-nothing-owed", [OpenResult(BATCH.format(0))]),
    TickPlay("tick-one-round", [opened("tick-one-round", 0, deliver=2, answer=1)]),
    TickPlay(
        "tick-rounds",
        [
            opened("tick-rounds", 0, deliver=1, answer=2, more=True),
            # Others held the clocks: nothing opened, and yet more is owed.
            OpenResult(BATCH.format(1), more=True),
            opened("tick-rounds", 2, deliver=1),
        ],
    ),
    TickPlay("tick-retry", [failed(), opened("tick-retry", 0, deliver=1)]),
]
PAGES = [
    PagePlay("page-one-round", [DONE]),
    PagePlay("page-waits", [AGAIN, AGAIN, DONE]),
    PagePlay("page-retry", [failed(), DONE]),
    PagePlay("page-lost-worker", ["hang", AGAIN, DONE]),
    PagePlay("page-new-history", [AGAIN, AGAIN, AGAIN, DONE], rounds_per_history=3),
]
PLAYS = {play.name: play for play in [*TICKS, *PAGES]}
