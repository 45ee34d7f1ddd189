"""message/send of many clients at the same time: one statement, and for each what it would have alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from agentex.agents import service as agents
from agentex.agents.models import Agent
from agentex.database import Database, sqlstate
from agentex.errors import NotFound
from agentex.idempotency import Repeat, find_entry
from agentex.ids import new_id
from agentex.resources import Resources
from agentex.rpc import sends
from agentex.rpc.sends import AgentMessage, End, NewSend
from agentex.tasks.models import Task, TaskRead
from tests.api.ledger.stage import CALLER, add_agent, add_task, fetch

SAID = """
    SELECT m.content->>'content' AS said, m.task_id = s.task_id AS in_its_task
    FROM message_sends s JOIN messages m ON m.id = ANY(s.message_ids) ORDER BY said
"""


@pytest.fixture
def written(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that go past SQLAlchemy, by how they begin."""
    sent: list[str] = []
    fetch_ = Database.fetch

    async def noted(db: Database, sql: str, parameters: dict[str, object]) -> object:
        sent.append(sql)
        return await fetch_(db, sql, parameters)

    monkeypatch.setattr(Database, "fetch", noted)
    return sent


def repeat_of(number: int) -> Repeat:
    # The lock's number is in the first half of the fingerprint.
    return Repeat(f"{number:016x}".ljust(64, "0"), "hash", 0, None)


def text(said: str) -> str:
    return json.dumps({"type": "text", "author": "user", "content": said})


def message(agent: Agent, task: Task | None = None, *, said: str = "Hi", name: str | None = None) -> NewSend:
    return NewSend(
        id=new_id(),
        account_id=agent.account_id,
        owner="somebody",
        agent_id=agent.id,
        task_id=task.id if task else new_id(),
        task_is_new=task is None,
        task_name=name,
        task_params={"said": said},
        content=text(said),
        claim_seconds=30,
    )


async def open_all(resources: Resources, news: list[NewSend]) -> list[TaskRead | BaseException | None]:
    opening = [sends.open_send(resources.db, new, repeat_of(place)) for place, new in enumerate(news)]
    return await asyncio.gather(*opening, return_exceptions=True)


async def add_send(resources: Resources, agent: Agent, number: int) -> UUID:
    new = message(agent)
    await sends.open_send(resources.db, new, repeat_of(100 + number))
    return new.id


def end_of(*said: str) -> End:
    messages = [AgentMessage(new_id(), text(one)) for one in said]
    return End([one.id for one in messages], messages)


async def test_each_opens_its_own_task_with_its_own_message_in_one_statement(
    resources: Resources, written: list[str]
) -> None:
    agents_ = [await add_agent(resources, name) for name in ("a", "b", "c")]
    news = [message(agent, said=f"Hi {agent.name}", name=f"for {agent.name}") for agent in reversed(agents_)]
    opened = await open_all(resources, news)

    assert len(written) == 1
    assert [(task.id, task.name, task.params) for task in opened if isinstance(task, TaskRead)] == [
        (new.task_id, new.task_name, new.task_params) for new in news
    ]
    found = await fetch(
        resources,
        """
        SELECT s.id, t.id AS task, t.agent_id, t.owner, m.content->>'content' AS said, m.streaming_status,
            (SELECT fingerprint FROM idempotency_keys WHERE answer->>'message_send' = s.id::text) AS entry,
            (SELECT count(*) FROM trackers k WHERE k.task_id = t.id AND k.agent_id = t.agent_id) AS trackers
        FROM message_sends s JOIN tasks t ON t.id = s.task_id JOIN messages m ON m.task_id = t.id
        ORDER BY s.id
        """,
    )
    assert [tuple(row.values()) for row in found] == [
        (
            new.id,
            new.task_id,
            new.agent_id,
            "somebody",
            (new.task_params or {})["said"],
            "DONE",
            repeat_of(place).fingerprint,
            1,
        )
        for place, new in enumerate(news)
    ]


async def test_several_messages_for_one_task_and_one_for_another(
    resources: Resources, written: list[str]
) -> None:
    agent = await add_agent(resources)
    busy, other = await add_task(resources, agent), await add_task(resources, agent)
    tasks = [busy, other, busy]
    opened = await open_all(resources, [message(agent, task) for task in tasks])

    assert [task.id for task in opened if isinstance(task, TaskRead)] == [task.id for task in tasks]
    assert len(written) == 1
    found = await fetch(resources, "SELECT task_id, count(*) AS sends FROM message_sends GROUP BY task_id")
    assert {row["task_id"]: row["sends"] for row in found} == {busy.id: 2, other.id: 1}


async def test_what_one_finds_gone_leaves_its_neighbours_alone(resources: Resources) -> None:
    agent, gone = await add_agent(resources), await add_agent(resources, "gone")
    await fetch(resources, "UPDATE agents SET deleted_at = now() WHERE id = :id", id=gone.id)
    news = [message(agent, name="one"), message(gone), message(agent, name="one"), message(agent)]
    opened = await open_all(resources, news)

    made = [task.id if isinstance(task, TaskRead) else task for task in opened]
    assert made in (
        [news[0].task_id, None, None, news[3].task_id],
        [None, None, news[2].task_id, news[3].task_id],
    )
    counted = "SELECT (SELECT count(*) FROM message_sends) + (SELECT count(*) FROM idempotency_keys) AS rows"
    assert (await fetch(resources, counted))[0]["rows"] == 4


async def test_what_cannot_be_stored_fails_alone(resources: Resources) -> None:
    agent = await add_agent(resources)
    news = [message(agent, said=said) for said in ("one", "\x00", "three")]
    opened = await open_all(resources, news)

    failure = opened.pop(1)
    assert isinstance(failure, DBAPIError)
    assert sqlstate(failure) == "22P05"
    assert [task.id for task in opened if isinstance(task, TaskRead)] == [news[0].task_id, news[2].task_id]
    assert (await fetch(resources, "SELECT count(*) AS n FROM messages"))[0]["n"] == 2


@asynccontextmanager
async def held(resources: Resources, repeat: Repeat) -> AsyncGenerator[None]:
    """Another transaction holds the lock of this request."""
    async with resources.db.begin() as session:
        await find_entry(session, repeat)
        yield


async def test_one_that_waits_for_a_lock_holds_up_neither_its_neighbours_nor_who_comes_behind(
    resources: Resources,
) -> None:
    agent = await add_agent(resources)
    news = [message(agent) for _ in range(3)]
    async with held(resources, repeat_of(1)):
        opening = [
            asyncio.create_task(sends.open_send(resources.db, new, repeat_of(place)))
            for place, new in enumerate(news)
        ]
        assert [await opening[0], await opening[2]] != [None, None]
        assert await sends.open_send(resources.db, message(agent), repeat_of(7)) is not None
        assert not opening[1].done()
    waited = await opening[1]
    assert waited is not None
    assert waited.id == news[1].task_id


async def test_a_lone_one_that_waits_for_a_lock_holds_up_nobody(resources: Resources) -> None:
    agent = await add_agent(resources)
    async with held(resources, repeat_of(1)):
        waiting = asyncio.create_task(sends.open_send(resources.db, message(agent), repeat_of(1)))
        await asyncio.sleep(0)
        assert await sends.open_send(resources.db, message(agent), repeat_of(2)) is not None
        assert not waiting.done()
    assert await waiting is not None


def wait_on(items: Sequence[object]) -> None:
    """No limit on waiting for a lock."""


async def until_waiting(resources: Resources, count: int) -> None:
    """So many transactions wait for a lock."""
    waiting = "SELECT count(*) AS n, pg_sleep(0.01)::text FROM pg_locks WHERE NOT granted"
    while (await fetch(resources, waiting))[0]["n"] < count:
        pass


@pytest.mark.parametrize("by", ["entry", "name"])
async def test_groups_that_want_the_same_in_another_order_do_not_deadlock(
    resources: Resources, written: list[str], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    agent = await add_agent(resources)
    # A deadlock or a lock that is waited for long would have each written alone, which heals it.
    monkeypatch.setattr(sends, "group_lock_timeout", wait_on)
    two = Database(resources.settings)
    try:
        async with resources.db.begin() as session:
            if by == "entry":
                await find_entry(session, repeat_of(2))
            else:
                # Rolled back: the two wait to see what becomes of it.
                held = Task.model_validate(
                    await add_task(resources, agent), update={"id": new_id(), "name": "2"}
                )
                session.add(held)
                await session.flush()
            groups = [
                asyncio.gather(
                    *[
                        sends.open_send(
                            db,
                            message(agent, name=str(number)),
                            repeat_of(number if by == "entry" else 10 * number + place),
                        )
                        for number in numbers
                    ]
                )
                for place, (db, numbers) in enumerate([(resources.db, (1, 2, 3)), (two, (3, 2, 1))])
            ]
            await until_waiting(resources, 2)
            await session.rollback()
        made = [task for group in await asyncio.gather(*groups) for task in group]
    finally:
        await two.close()
    assert sum(task is not None for task in made) == 3
    assert len(written) == 2


async def test_each_end_has_its_own_messages_and_times(resources: Resources, written: list[str]) -> None:
    agent = await add_agent(resources)
    ids = [await add_send(resources, agent, number) for number in range(3)]
    gone = await add_send(resources, agent, 9)
    await fetch(
        resources,
        "DELETE FROM messages WHERE task_id = (SELECT task_id FROM message_sends WHERE id = :id)",
        id=gone,
    )
    await fetch(resources, "DELETE FROM message_sends WHERE id = :id", id=gone)
    ends = [end_of("a1", "a2"), End([], [], "it failed", unsent=True), end_of("c")]
    written.clear()

    asked = zip([ids[0], gone, *ids[1:]], [ends[0], end_of("x"), *ends[1:]], strict=True)
    times = await asyncio.gather(*[sends.end_send(resources.db, send_id, end) for send_id, end in asked])

    assert len(written) == 1
    assert [None if found is None else set(found) for found in times] == [
        set(ends[0].message_ids),
        None,
        set(),
        set(ends[2].message_ids),
    ]
    ended = [await sends.read_end(resources.db, send_id) for send_id in ids]
    assert [(end.error, end.message_ids) for end in ended if end] == [
        (end.error, end.message_ids) for end in ends
    ]
    found = await fetch(resources, "SELECT unsent FROM message_sends ORDER BY id")
    assert [row["unsent"] for row in found] == [False, True, False]
    assert [tuple(row.values()) for row in await fetch(resources, SAID)] == [
        ("a1", True),
        ("a2", True),
        ("c", True),
    ]


async def test_an_end_that_cannot_be_stored_fails_alone(resources: Resources) -> None:
    agent = await add_agent(resources)
    ids = [await add_send(resources, agent, number) for number in range(3)]
    ends = [end_of(said) for said in ("one", "\x00", "three")]
    times = await asyncio.gather(
        *[sends.end_send(resources.db, *given) for given in zip(ids, ends, strict=True)],
        return_exceptions=True,
    )
    assert [type(found) for found in times] == [dict, DBAPIError, dict]
    assert [row["said"] for row in await fetch(resources, SAID)] == ["one", "three"]


async def test_an_end_comes_once_more_behind_one_that_was_cut_off(resources: Resources) -> None:
    agent = await add_agent(resources)
    send_id, end = await add_send(resources, agent, 1), end_of("Hello")
    first = asyncio.create_task(sends.end_send(resources.db, send_id, end))
    again = asyncio.create_task(sends.end_send(resources.db, send_id, end))
    await asyncio.sleep(0)
    first.cancel()

    assert set(await again or ()) == set(end.message_ids)
    assert first.cancelled()
    assert [row["said"] for row in await fetch(resources, SAID)] == ["Hello"]


async def test_agents_that_are_called_at_the_same_time_are_looked_up_together(
    resources: Resources, written: list[str]
) -> None:
    wanted = [await add_agent(resources, name) for name in ("a", "b")]
    await add_agent(resources, "elsewhere", account_id="another")
    ids = [str(wanted[1].id), str(wanted[0].id), str(new_id()), str(wanted[1].id)]
    found = await asyncio.gather(
        *[agents.get_to_call(resources, CALLER, agent_id=agent_id) for agent_id in ids],
        *[agents.get_to_call(resources, CALLER, name=name) for name in ("b", "\x00", "elsewhere")],
        return_exceptions=True,
    )
    got = [agent.id if isinstance(agent, Agent) else type(agent) for agent in found]
    a, b = (agent.id for agent in wanted)
    assert got == [b, a, NotFound, b, b, DBAPIError, NotFound]
    # By id; by name; and by name once more for each, since one cannot be looked up.
    assert len(written) == 1 + 1 + 3
