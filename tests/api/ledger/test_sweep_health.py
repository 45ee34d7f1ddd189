"""Health checks as the sweep begins them: in the background, now and then, one round at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import REGISTRY

from agentex.agents.models import AgentStatus
from agentex.resources import Resources
from agentex.sweep import health as sweep_health
from agentex.sweep.sweep import Sweep
from tests.api.ledger.stage import add_agent, fetch, nobody_sweeps, probes_failed
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer


class Clock:
    """What the rounds read as the time."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def read(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(sweep_health, "monotonic", made.read)
    return made


@pytest.fixture
async def make_sweep(hooked: Resources, clock: Clock) -> AsyncIterator[Callable[..., Sweep]]:
    """Sweeps that look at the health every 30 s of the clock, unless told otherwise."""
    await nobody_sweeps(hooked)
    made: list[Sweep] = []

    def make(**settings: object) -> Sweep:
        hooked.settings = hooked.settings.model_copy(update={"agent_health_failures": 1} | settings)
        made.append(Sweep(hooked))
        return made[-1]

    yield make
    for sweep in made:
        await sweep.close()


async def probed(server: AcpServer, count: int) -> None:
    """Return when the agent has been asked so often."""
    async with asyncio.timeout(10):
        await server.is_probed(count)


async def test_a_round_begins_once_an_interval(
    hooked: Resources, make_sweep: Callable[..., Sweep], clock: Clock, acp_server: AcpServer
) -> None:
    await add_agent(hooked, acp_url=acp_server.url)
    sweep = make_sweep()
    found: list[int] = []
    for later in (0, 29, 1, 5, 24, 1):
        clock.seconds += later
        await sweep.sweep_once()
        if clock.seconds in (1_030, 1_060):
            await probed(acp_server, len(found) // 3 + 1)
        found.append(acp_server.probes)

    assert found == [0, 0, 1, 1, 1, 2]


async def test_a_sweep_does_not_wait_for_agents_that_hang(
    hooked: Resources, make_sweep: Callable[..., Sweep], clock: Clock, acp_server: AcpServer
) -> None:
    await add_agent(hooked, acp_url=acp_server.url)
    acp_server.script("healthz", [Reply(hang="before")], repeat=True)
    sweep = make_sweep(agent_health_timeout_seconds=60)
    async with asyncio.timeout(10):
        for _ in range(3):
            clock.seconds += 30
            await sweep.sweep_once()
        await acp_server.is_hanging()
        # One round is open still, so no other has begun.
        assert (acp_server.hanging, acp_server.probes) == (1, 1)
        await sweep.close()
    await acp_server.has_dropped()


async def test_an_interval_of_0_asks_nobody(
    hooked: Resources, make_sweep: Callable[..., Sweep], clock: Clock, acp_server: AcpServer
) -> None:
    await add_agent(hooked, acp_url=acp_server.url)
    sweep = make_sweep(agent_health_interval_seconds=0)
    for _ in range(3):
        clock.seconds += 1_000
        await sweep.sweep_once()
    # A process that does look has looked by then.
    looking = make_sweep(agent_health_interval_seconds=30)
    await sweep.close()
    await nobody_sweeps(hooked)
    clock.seconds += 30
    await looking.sweep_once()
    await probed(acp_server, 1)

    assert acp_server.probes == 1


async def test_another_process_goes_on_counting_where_the_first_has_stopped(
    hooked: Resources, make_sweep: Callable[..., Sweep], clock: Clock, acp_server: AcpServer
) -> None:
    await add_agent(hooked, acp_url=acp_server.url)
    acp_server.script("healthz", [Reply(status=500)], repeat=True)
    for count in (1, 2):
        sweep = make_sweep(agent_health_failures=2)
        clock.seconds += 30
        await sweep.sweep_once()
        await probes_failed(hooked, count)
        await sweep.close()
        await nobody_sweeps(hooked)

    found = await fetch(hooked, "SELECT status FROM agents")
    assert [row["status"] for row in found] == [AgentStatus.UNHEALTHY]


async def test_a_fault_of_a_round_is_counted_and_the_next_round_comes(
    hooked: Resources,
    make_sweep: Callable[..., Sweep],
    clock: Clock,
    acp_server: AcpServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await add_agent(hooked, acp_url=acp_server.url)
    look = sweep_health.check_health
    failed = asyncio.Event()

    async def fail(_: Resources) -> None:
        failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(sweep_health, "check_health", fail)
    before = unexpected()
    sweep = make_sweep()
    clock.seconds += 30
    await sweep.sweep_once()
    await failed.wait()
    monkeypatch.setattr(sweep_health, "check_health", look)
    clock.seconds += 30
    await sweep.sweep_once()
    await probed(acp_server, 1)

    assert unexpected() == before + 1


def unexpected() -> float:
    return REGISTRY.get_sample_value("agentex_unexpected_errors_total", {"where": "sweep.health"}) or 0.0
