"""Postgres away for longer than a page's claims last: no run is sent twice, and none is canceled."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest

from agentex.dev.postgres import EmbeddedPostgres
from tests.support.fault_pages import assert_nothing_lost_or_doubled, begin_page, until_page_ended
from tests.support.fault_postgres import frozen
from tests.support.fault_stack import Stack
from tests.support.postgres import PostgresServer

PAGE = 100


@contextmanager
def stopped(postgres: EmbeddedPostgres) -> Generator[None]:
    """Down: connections are refused."""
    postgres.stop()
    yield
    postgres.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("away", [frozen, stopped], ids=["hangs", "is down"])
async def test_postgres_away_past_the_claims_of_a_page_doubles_and_cancels_nothing(
    stack_on_own_postgres: Callable[..., Stack],
    own_postgres: PostgresServer,
    away: Callable[[EmbeddedPostgres], AbstractContextManager[None]],
) -> None:
    """What waited for the agent's window is due again, is claimed again by the same launch, and sent once."""
    stack = stack_on_own_postgres(
        database_connect_timeout_seconds=1,
        database_statement_timeout_seconds=2,
        claim_seconds=6,
        # What hangs at the agent meanwhile must not end by itself.
        event_send_timeout_seconds=120,
    )
    worker = stack.start()
    agent = await begin_page(stack, PAGE)

    async def past_claims() -> bool:
        # One look takes 2 s and a connect that fails at least nothing, with 2 s before the next.
        return worker.process.output(100_000).count("run.renew") >= 6

    with away(own_postgres.postgres):
        await stack.until(past_claims, "the claims expired")
    await until_page_ended(stack, agent, PAGE)
    assert_nothing_lost_or_doubled(await stack.runs(), agent, PAGE)
    assert "Traceback" not in worker.process.output(100_000)
