"""What the counters say of instants and runs: as much as the ledger does."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from agentex.agents.models import Agent
from agentex.executors.base import Lane
from agentex.resources import Resources
from agentex.runs.finish import Outcome, record
from agentex.runs.models import Run, RunReason, RunStatus
from tests.api.ledger.stage import NOON, Attached, add_run, add_schedule, freeze, minutes, open_once, seconds

TOKEN = UUID("01930000-0000-7000-8000-0000000000bb")
SAMPLES: dict[str, tuple[str, dict[str, str]]] = {
    "due": ("agentex_instants_opened_total", {"by": "test", "outcome": "due"}),
    "missed": ("agentex_instants_opened_total", {"by": "test", "outcome": "missed"}),
    "ended missed": ("agentex_runs_ended_total", {"status": "skipped", "reason": "missed"}),
    "ended delivered": ("agentex_runs_ended_total", {"status": "delivered", "reason": ""}),
    "ended denied": ("agentex_runs_ended_total", {"status": "skipped", "reason": "denied"}),
    "on time or not": ("agentex_lateness_seconds_count", {"lane": "deliver"}),
    "seconds late": ("agentex_lateness_seconds_sum", {"lane": "deliver"}),
}


class Rise:
    """How far each sample has risen since this was made; those that have not are left out."""

    def __init__(self) -> None:
        self._before = self._read()

    def since(self) -> dict[str, float]:
        now = self._read()
        return {name: now[name] - self._before[name] for name in SAMPLES if now[name] != self._before[name]}

    @staticmethod
    def _read() -> dict[str, float]:
        return {
            name: REGISTRY.get_sample_value(sample, labels) or 0.0
            for name, (sample, labels) in SAMPLES.items()
        }


async def test_an_opening_counts_its_rows_by_outcome_and_those_that_end_there(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(3))
    for _ in range(2):
        await add_schedule(resources, agent, Attached(NOON - minutes(10), NOON - minutes(3)))
    rise = Rise()
    assert (await open_once(resources)).rows == {"due": 2, "missed": 6}
    assert rise.since() == {"due": 2, "missed": 6, "ended missed": 6}
    await open_once(resources)
    assert rise.since() == {"due": 2, "missed": 6, "ended missed": 6}


async def launching(resources: Resources, agent: Agent, due_at: datetime) -> Run:
    now = datetime.now(UTC)
    claim = {"claimed_by": TOKEN, "claimed_until": now + minutes(1), "sending_at": now, "attempt": 1}
    return await add_run(
        resources, agent, RunStatus.LAUNCHING, lane=Lane.DELIVER, due_at=due_at, delivered_at=NOON, **claim
    )


async def test_a_record_counts_each_end_once_and_the_lateness_of_what_was_delivered(
    resources: Resources, agent: Agent
) -> None:
    late = [await launching(resources, agent, NOON - seconds(by)) for by in (2, 5)]
    denied = await launching(resources, agent, NOON)
    outcomes = [Outcome(run.id, TOKEN, RunStatus.DELIVERED, delivered=True) for run in late]
    outcomes.append(Outcome(denied.id, TOKEN, RunStatus.SKIPPED, RunReason.DENIED, "no"))
    rise = Rise()
    for _ in range(2):
        async with resources.db.begin() as session:
            await record(session, outcomes)
    assert rise.since() == {
        "ended delivered": 2,
        "ended denied": 1,
        "on time or not": 2,
        "seconds late": pytest.approx(7),
    }
