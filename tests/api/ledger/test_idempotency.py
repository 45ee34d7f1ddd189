"""Repeats of a POST: which entry answers which request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from agentex.auth.principal import Principal
from agentex.database import JsonObject
from agentex.errors import InvalidInput
from agentex.idempotency import (
    MAX_KEY_LENGTH,
    Request,
    find_answer,
    forget_old,
    remember,
    repeat_of,
)
from agentex.resources import Resources
from tests.api.ledger.stage import CALLER, fetch

POST = Request(method="POST", path="/agents/a/schedules", body=b"{}", peer="10.0.0.1", user_agent="sdk/1")


@dataclass
class Counting:
    """Makes numbers: 1, 2, 3 …"""

    resources: Resources
    count: int = 0


async def carry_out(counting: Counting, request: Request, principal: Principal = CALLER) -> JsonObject:
    """A request that makes something: the thing it made, or the thing its original made."""
    repeat = repeat_of(request, principal)
    async with counting.resources.db.begin() as session:
        answer = await find_answer(session, repeat)
        if answer is not None:
            return answer
        counting.count += 1
        await remember(session, repeat, {"n": counting.count})
        return {"n": counting.count}


@pytest.fixture
def counting(resources: Resources) -> Counting:
    return Counting(resources)


async def made(counting: Counting, *requests: Request) -> list[int]:
    return [(await carry_out(counting, request))["n"] for request in requests]


def repeat(count: int, request: Request = POST) -> Request:
    return replace(request, retry_count=count)


async def test_a_silent_repeat_finds_what_the_original_made(counting: Counting) -> None:
    assert await made(counting, POST, repeat(1), repeat(2)) == [1, 1, 1]


async def test_a_second_repeat_alone_finds_it_too(counting: Counting) -> None:
    assert await made(counting, POST, repeat(2)) == [1, 1]


async def test_the_same_request_anew_makes_a_second_thing(counting: Counting) -> None:
    assert await made(counting, POST, POST, repeat(1), POST, repeat(1), repeat(2)) == [1, 2, 2, 3, 3, 3]


async def test_a_repeat_consumes_its_original(counting: Counting) -> None:
    # Two originals and two first repeats, crosswise: each repeat answers for another original.
    assert await made(counting, POST, POST, repeat(1), repeat(1)) == [1, 2, 2, 1]


async def test_a_repeat_whose_original_never_came_is_the_original(counting: Counting) -> None:
    assert await made(counting, repeat(1), repeat(2), POST) == [1, 1, 2]


@pytest.mark.parametrize(
    "other",
    [
        replace(POST, body=b'{"a": 1}'),
        replace(POST, path="/agents/b/schedules"),
        replace(POST, method="PUT"),
        replace(POST, peer="10.0.0.2"),
        replace(POST, user_agent="sdk/2"),
    ],
    ids=["body", "path", "method", "peer", "user-agent"],
)
async def test_another_request_is_no_repeat(counting: Counting, other: Request) -> None:
    assert await made(counting, POST, repeat(1, other)) == [1, 2]


async def test_another_principal_s_request_is_no_repeat(counting: Counting) -> None:
    first = await carry_out(counting, POST)
    second = await carry_out(counting, repeat(1), Principal(user_id="somebody else"))
    assert (first, second) == ({"n": 1}, {"n": 2})


async def test_a_key_answers_from_anywhere_and_whatever_the_count(counting: Counting) -> None:
    keyed = replace(POST, key="k-1")
    elsewhere = replace(keyed, peer="10.9.9.9", user_agent="curl/8")
    assert await made(counting, keyed, keyed, elsewhere, repeat(1, keyed)) == [1, 1, 1, 1]


async def test_another_key_is_another_request(counting: Counting) -> None:
    assert await made(counting, replace(POST, key="k-1"), replace(POST, key="k-2"), POST) == [1, 2, 3]


async def test_a_key_used_with_another_body_is_refused_by_name(counting: Counting) -> None:
    await carry_out(counting, replace(POST, key="k-1"))
    with pytest.raises(InvalidInput) as caught:
        await carry_out(counting, replace(POST, key="k-1", body=b'{"a": 1}'))
    assert caught.value.message == "Idempotency-Key: 'k-1' was used with another body; use a new key"


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_LENGTH + 1)])
def test_a_key_has_a_length(key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        repeat_of(replace(POST, key=key), CALLER)
    assert caught.value.message == f"Idempotency-Key: takes 1 to 255 characters, not {len(key)}"


async def test_an_entry_is_forgotten_after_its_window(counting: Counting) -> None:
    await made(counting, POST, replace(POST, key="k-1"))
    await fetch(counting.resources, "UPDATE idempotency_keys SET created_at = created_at - interval '11 min'")
    assert await made(counting, repeat(1), replace(POST, key="k-1")) == [3, 2]


async def test_only_entries_of_more_than_a_day_are_deleted(counting: Counting) -> None:
    await made(counting, POST, replace(POST, key="k-1"))
    await fetch(
        counting.resources,
        "UPDATE idempotency_keys SET created_at = created_at - interval '25 h' WHERE answer->>'n' = '1'",
    )
    async with counting.resources.db.begin() as session:
        await forget_old(session)
    found = await fetch(counting.resources, "SELECT answer->>'n' AS n FROM idempotency_keys")
    assert [row["n"] for row in found] == ["2"]


async def test_a_repeat_that_overtakes_its_original_waits_for_it(counting: Counting) -> None:
    original = repeat_of(POST, CALLER)
    async with counting.resources.db.begin() as session:
        assert await find_answer(session, original) is None
        overtaking = asyncio.create_task(carry_out(counting, repeat(1)))
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
        )
        while not await fetch(counting.resources, waiting):
            assert not overtaking.done()
        await remember(session, original, {"n": 77})
    assert await overtaking == {"n": 77}
