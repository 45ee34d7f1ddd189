"""open_due in rounds and side by side: pages, repeats, limits, clocks; nothing lost and nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from agentex.agents.models import AcpType, Agent
from agentex.executors.base import Lane
from agentex.ids import fire_id, new_id
from agentex.resources import Resources
from agentex.runs.pages import put_into_pages
from agentex.schedules import open as open_module
from agentex.schedules.open import open_due
from tests.api.ledger.stage import (
    NOON,
    Attached,
    Crowd,
    add_agent,
    add_crowd,
    add_schedule,
    fetch,
    freeze,
    minutes,
    open_all,
    open_once,
    seconds,
)

DUE_AT_NOON = Attached(NOON - timedelta(days=30), NOON)


async def pages(resources: Resources) -> dict[tuple[str, int], Counter[str]]:
    """Which agents have how many runs in each page."""
    found = await fetch(
        resources,
        """
        SELECT r.lane, r.page, a.name, count(*) AS runs FROM runs r JOIN agents a ON a.id = r.agent_id
        WHERE r.status = 'due' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
    )
    placed: dict[tuple[str, int], Counter[str]] = {}
    for row in found:
        placed.setdefault((row["lane"], row["page"]), Counter())[row["name"]] = row["runs"]
    return placed


async def next_due_at(resources: Resources) -> object:
    found = await fetch(resources, "SELECT next_due_at FROM clocks")
    assert len(found) == 1
    return found[0]["next_due_at"]


async def test_an_agent_of_twenty_has_pages_of_its_own_and_smaller_ones_share(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    for name, count in (("big", 20), ("small", 19), ("tiny", 1)):
        await add_crowd(resources, Crowd(await add_agent(resources, name), count, DUE_AT_NOON))
    opened = await open_once(resources)
    assert opened.lanes == {"deliver": 2}
    assert await pages(resources) == {
        ("deliver", 0): Counter(small=19, tiny=1),
        ("deliver", 1): Counter(big=20),
    }


async def test_lanes_number_their_pages_from_zero_each(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    kinds = {"sync": AcpType.SYNC, "async": AcpType.ASYNC, "agentic": AcpType.AGENTIC}
    for name, kind in kinds.items():
        agent = await add_agent(resources, name, acp_type=kind)
        await add_crowd(resources, Crowd(agent, 3, DUE_AT_NOON))
    opened = await open_once(resources)
    assert opened.lanes == {"answer": 1, "deliver": 1}
    assert await pages(resources) == {
        ("answer", 0): Counter(sync=3),
        ("deliver", 0): {"agentic": 3, "async": 3},
    }


async def test_450_runs_of_one_agent_make_three_pages(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_crowd(resources, Crowd(agent, 450, DUE_AT_NOON))
    opened = await open_once(resources)
    assert opened.lanes == {"deliver": 3}
    assert await pages(resources) == {
        ("deliver", 0): Counter(echo=200),
        ("deliver", 1): Counter(echo=200),
        ("deliver", 2): Counter(echo=50),
    }


async def test_skipped_rows_have_no_page(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, DUE_AT_NOON, skipped_action_times=[fire_id(NOON)])
    opened = await open_once(resources)
    found = await fetch(resources, "SELECT lane, page, batch_id, next_attempt_at, finished_at FROM runs")
    assert (opened.lanes, [dict(row) for row in found]) == (
        {},
        [
            {
                "lane": None,
                "page": None,
                "batch_id": opened.batch_id,
                "next_attempt_at": None,
                "finished_at": NOON,
            }
        ],
    )


@pytest.mark.parametrize("one", ["a", "z"], ids=["the-one-sorts-first", "the-one-sorts-last"])
async def test_an_account_of_a_thousand_does_not_stand_before_another_s_one(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, one: str
) -> None:
    freeze(monkeypatch, NOON)
    many = await add_agent(resources, "many", account_id="m")
    lone = await add_agent(resources, "lone", account_id=one)
    await add_crowd(resources, Crowd(many, 1_000, DUE_AT_NOON))
    await add_crowd(resources, Crowd(lone, 1, DUE_AT_NOON))
    opened = await open_once(resources)
    assert opened.lanes == {"deliver": 6}
    assert (await pages(resources))[("deliver", 0)] == Counter(lone=1)


async def test_two_large_accounts_take_turns(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch, NOON)
    for name in ("a", "b"):
        agent = await add_agent(resources, name, account_id=name)
        await add_crowd(resources, Crowd(agent, 400, DUE_AT_NOON))
    await open_once(resources)
    assert [sorted(page) for page in (await pages(resources)).values()] == [["a"], ["b"], ["a"], ["b"]]


async def test_packed_agents_of_one_account_do_not_push_another_s_to_a_later_page(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    for number in range(15):
        agent = await add_agent(resources, f"a{number}", account_id="a")
        await add_crowd(resources, Crowd(agent, 19, DUE_AT_NOON))
    await add_crowd(resources, Crowd(await add_agent(resources, "b", account_id="b"), 1, DUE_AT_NOON))
    await open_once(resources)
    placed = await pages(resources)
    assert {place: page.total() for place, page in placed.items()} == {
        ("deliver", 0): 200,
        ("deliver", 1): 86,
    }
    assert placed[("deliver", 0)]["b"] == 1


async def test_a_repeat_of_the_same_batch_returns_the_same_pages_and_opens_nothing(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_crowd(resources, Crowd(agent, 250, DUE_AT_NOON))
    batch_id = new_id()
    first = await open_once(resources, batch_id)
    freeze(monkeypatch, NOON + minutes(1))
    repeat = await open_once(resources, batch_id)
    assert (repeat.batch_id, repeat.lanes, repeat.rows, repeat.more) == (batch_id, first.lanes, {}, True)
    assert [row["n"] for row in await fetch(resources, "SELECT count(*) AS n FROM runs")] == [250]


async def test_a_repeat_of_a_batch_of_skipped_rows_has_no_pages(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, DUE_AT_NOON, skipped_action_times=[fire_id(NOON)])
    batch_id = new_id()
    await open_once(resources, batch_id)
    repeat = await open_once(resources, batch_id)
    assert (repeat.lanes, repeat.more) == ({}, True)


async def test_two_ticks_at_once_open_each_instant_once(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + seconds(9))
    for interval in range(2, 10):
        await add_crowd(resources, Crowd(agent, 20, DUE_AT_NOON, interval, f"every{interval}-"))
    await asyncio.gather(*[open_all(resources) for _ in range(4)])
    found = await fetch(
        resources,
        """
        SELECT s.interval_seconds AS every, count(*) AS runs, count(DISTINCT r.fire_id) AS instants
        FROM runs r JOIN agent_run_schedules s ON s.id = r.schedule_id GROUP BY 1 ORDER BY 1
        """,
    )
    expected = {
        every: [NOON + seconds(offset) for offset in range(10) if _is_instant(every, offset)]
        for every in range(2, 10)
    }
    assert {row["every"]: (row["runs"], row["instants"]) for row in found} == {
        every: (20 * len(instants), len(instants)) for every, instants in expected.items() if instants
    }


def _is_instant(every: int, offset: int) -> bool:
    return (int(NOON.timestamp()) + offset) % every == 0


async def test_a_clock_that_another_tick_is_opening_is_left_to_it(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_schedule(resources, agent, DUE_AT_NOON)
    async with resources.db.begin() as session:
        first = await open_due(session, resources.settings, new_id(), by="test")
        second = await open_once(resources)
    assert (first.rows, second.rows, second.more) == ({"due": 1}, {}, False)


async def test_a_backlog_over_the_limit_loses_nothing(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_module, "ROWS_PER_ROUND", 7)
    freeze(monkeypatch, NOON + seconds(20))
    for interval, prefix in ((10, "ten-"), (5, "five-")):
        attached = Attached(NOON - timedelta(days=1), NOON - minutes(1))
        await add_crowd(resources, Crowd(agent, 3, attached, interval, prefix))
    rounds = await open_all(resources)
    assert all(sum(opened.rows.values()) <= 7 for opened in rounds)
    found = await fetch(
        resources,
        """
        SELECT split_part(s.name, '-', 1) AS kind, coalesce(r.reason, r.cause) AS decision, count(*) AS n,
            count(DISTINCT r.fire_id) AS instants
        FROM runs r JOIN agent_run_schedules s ON s.id = r.schedule_id GROUP BY 1, 2 ORDER BY 1, 2
        """,
    )
    # From -60 s to +20 s; on time are those from -10 s on.
    assert [tuple(row.values()) for row in found] == [
        ("five", "cadence", 21, 7),
        ("five", "missed", 30, 10),
        ("ten", "cadence", 12, 4),
        ("ten", "missed", 15, 5),
    ]
    behind = await fetch(resources, "SELECT 1 FROM clocks WHERE next_due_at <= :n", n=NOON + seconds(20))
    assert list(behind) == []


async def test_a_long_backlog_is_taken_in_pieces_and_ends_in_one_delivery(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_module, "ROWS_PER_ROUND", 50)
    freeze(monkeypatch, NOON + seconds(45))
    await add_schedule(resources, agent, Attached(NOON - timedelta(days=1), NOON - timedelta(hours=5)))
    rounds = await open_all(resources)
    assert len(rounds) > 5
    found = await fetch(
        resources,
        """SELECT coalesce(reason, cause) AS decision, count(*) AS n, max(due_at) AS newest
        FROM runs GROUP BY 1 ORDER BY 1""",
    )
    assert [tuple(row.values()) for row in found] == [
        ("catch_up", 1, NOON),
        ("missed", 300, NOON - minutes(1)),
    ]


async def test_more_clocks_than_a_round_takes_are_opened_by_the_next_ones(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    for interval in range(1_800, 1_800 + 60):
        await add_schedule(resources, agent, DUE_AT_NOON, interval_seconds=interval)
    rounds = await open_all(resources)
    # Most of these intervals have no instant at NOON: their clocks are moved on all the same.
    assert len(rounds) == 2
    left = await fetch(resources, "SELECT count(*) AS n FROM clocks WHERE next_due_at <= :now", now=NOON)
    assert left[0]["n"] == 0
    expected = [i for i in range(1_800, 1_860) if int(NOON.timestamp()) % i == 0]
    found = await fetch(
        resources,
        """SELECT s.interval_seconds AS every FROM runs r JOIN agent_run_schedules s ON s.id = r.schedule_id
        ORDER BY 1""",
    )
    assert [row["every"] for row in found] == expected


async def test_the_clock_moves_to_the_first_instant_that_is_not_opened(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + minutes(2))
    await add_schedule(resources, agent, DUE_AT_NOON)
    await open_once(resources)
    assert await next_due_at(resources) == NOON + minutes(3)


async def test_a_clock_moves_on_when_nobody_is_attached(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON + minutes(2))
    await add_schedule(resources, agent, DUE_AT_NOON)
    await fetch(resources, "DELETE FROM schedule_clocks")
    await open_once(resources)
    assert await next_due_at(resources) == NOON + minutes(3)


async def test_the_sweep_opens_only_what_is_overdue(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_schedule(resources, agent, DUE_AT_NOON)
    counts: list[int] = []
    for late in (29, 30):
        freeze(monkeypatch, NOON + seconds(late))
        async with resources.db.begin() as session:
            opened = await open_due(session, resources.settings, new_id(), by="sweep", overdue_seconds=30)
        counts.append(sum(opened.rows.values()))
    assert counts == [0, 1]


async def test_runs_put_into_pages_again_follow_the_same_rules(
    resources: Resources, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(monkeypatch, NOON)
    await add_crowd(resources, Crowd(agent, 203, DUE_AT_NOON))
    await open_once(resources)
    await fetch(resources, "UPDATE runs SET status = 'launching' WHERE id IN (SELECT id FROM runs LIMIT 2)")
    ids = [row["id"] for row in await fetch(resources, "SELECT id FROM runs")]
    async with resources.db.begin() as session:
        references = await put_into_pages(session, ids)
    assert [(reference.lane, reference.page) for reference in references] == [
        (Lane.DELIVER, 0),
        (Lane.DELIVER, 1),
    ]
    assert await pages(resources) == {("deliver", 0): Counter(echo=200), ("deliver", 1): Counter(echo=1)}
