"""`agentex check` where nothing answers, and its judgements of what no test has at hand."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from agentex.check import Finding, State, asked, migrations_finding, server_finding


@pytest.mark.parametrize(
    ("version", "state"),
    [(140011, State.MISSING), (150000, State.OK), (160002, State.OK), (180001, State.OK)],
)
def test_postgres_is_15_or_newer(version: int, state: State) -> None:
    assert server_finding("postgresql://here", version).state is state


def test_an_old_postgres_is_told_which_one_is_needed() -> None:
    assert server_finding("postgresql://here", 140011) == Finding(
        name="postgres",
        state=State.MISSING,
        detail="postgresql://here answers, version 14.11",
        todo="agentex needs 15 or newer",
    )


@pytest.mark.parametrize(
    ("current", "state", "words"),
    [
        ({"2"}, State.OK, "at 2, the newest"),
        (set[str](), State.MISSING, "at none, the newest is 2"),
        ({"1"}, State.MISSING, "at 1, the newest is 2"),
        ({"3"}, State.MISSING, "at 3, which this agentex does not know"),
    ],
)
def test_migrations_are_the_newest(current: set[str], state: State, words: str) -> None:
    found = migrations_finding(current, {"2"}, {"1", "2"})
    assert (found.state, found.detail) == (state, words)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyError("s3cret"), "KeyError"),
        (
            DBAPIError("SELECT 1", {"password": "s3cret"}, ValueError("no such role\nor so")),
            "no such role",
        ),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError(), "no answer in time"),
    ],
)
async def test_whatever_fails_in_a_question_is_a_finding_without_secrets(error: Exception, why: str) -> None:
    async def question() -> Finding:
        raise error

    found = await asked("postgres", question(), place="here")
    assert found == Finding(name="postgres", state=State.UNREACHABLE, detail=f"here: {why}")


def test_a_line_tells_what_to_do() -> None:
    found = Finding(name="migrations", state=State.MISSING, detail="at none", todo="run `agentex migrate`")
    assert found.line.split() == ["missing", "migrations", "at", "none:", "run", "`agentex", "migrate`"]
