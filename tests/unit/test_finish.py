"""The table "What is sent again, and what is not" (docs: architecture), row by row."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from agentex.auth.principal import Principal
from agentex.errors import (
    AgentAddressRefused,
    AgentCallFailed,
    AgentError,
    AgentProtocolError,
    AgentRejected,
    AgentUnreachable,
    OutcomeUnknown,
)
from agentex.resources import Definition, DefinitionRef
from agentex.runs.claims import Claimed
from agentex.runs.finish import (
    MAX_ERROR_LENGTH,
    Failed,
    Outcome,
    outcome_of_failure,
    outcome_of_skip,
    outcome_of_success,
    outcome_of_wait,
)
from agentex.runs.models import RunReason, RunStatus

RUN = UUID("01930000-0000-7000-8000-000000000001")
TOKEN = UUID("01930000-0000-7000-8000-000000000002")
OTHER = UUID("01930000-0000-7000-8000-000000000003")

DEFINITION = Definition(
    name="nightly",
    input={"type": "text", "author": "user", "content": "go"},
    task_params=None,
    task_metadata=None,
    retry_window_seconds=600,
    resend_unknown=False,
    finishes_on_task=False,
    deleted=False,
)
RESENDS = replace(DEFINITION, resend_unknown=True)


def claimed(*, attempt: int = 1, waited_seconds: float = 0) -> Claimed:
    now = datetime.now(UTC)
    return Claimed(
        id=RUN,
        account_id="default",
        agent_id=OTHER,
        definition=DefinitionRef(OTHER, 1),
        fire_id="2026-12-01T09:00:00Z",
        cause="cadence",
        due_at=now,
        principal=Principal(),
        attempt=attempt,
        launched_at=now - timedelta(seconds=waited_seconds),
        task_created=False,
        missed=False,
        cancel_requested=False,
    )


def again(error: str, seconds: float, reason: RunReason = RunReason.AGENT_UNREACHABLE) -> Outcome:
    return Outcome(RUN, TOKEN, RunStatus.DUE, reason, error, retry_in_seconds=seconds)


def failed(error: str, reason: RunReason) -> Outcome:
    return Outcome(RUN, TOKEN, RunStatus.FAILED, reason, error)


@pytest.mark.parametrize(
    ("failure", "repeats_agent_error", "definition", "expected"),
    [
        (AgentUnreachable("refused"), True, DEFINITION, again("refused", 1)),
        (AgentUnreachable("refused"), False, DEFINITION, again("refused", 1)),
        (AgentAddressRefused("refused"), True, DEFINITION, again("refused", 1)),
        (AgentUnreachable("503", retry_after_seconds=7), False, DEFINITION, again("503", 7)),
        (AgentUnreachable("429", retry_after_seconds=0), False, DEFINITION, again("429", 1)),
        (AgentError("500"), True, DEFINITION, again("500", 1, RunReason.AGENT_ERROR)),
        (AgentError("500"), False, DEFINITION, failed("500", RunReason.AGENT_ERROR)),
        (AgentError("500"), False, RESENDS, failed("500", RunReason.AGENT_ERROR)),
        (AgentRejected("422"), True, DEFINITION, failed("422", RunReason.AGENT_ERROR)),
        (AgentRejected("422"), False, DEFINITION, failed("422", RunReason.AGENT_ERROR)),
        (AgentProtocolError("not JSON"), True, DEFINITION, failed("not JSON", RunReason.AGENT_PROTOCOL)),
        (AgentProtocolError("not JSON"), False, RESENDS, failed("not JSON", RunReason.AGENT_PROTOCOL)),
        (OutcomeUnknown("silence"), True, DEFINITION, failed("silence", RunReason.OUTCOME_UNKNOWN)),
        (OutcomeUnknown("silence"), False, DEFINITION, failed("silence", RunReason.OUTCOME_UNKNOWN)),
        (OutcomeUnknown("silence"), True, RESENDS, again("silence", 1, RunReason.OUTCOME_UNKNOWN)),
        (OutcomeUnknown("silence"), False, RESENDS, again("silence", 1, RunReason.OUTCOME_UNKNOWN)),
    ],
)
def test_what_is_sent_again(
    failure: AgentCallFailed, repeats_agent_error: bool, definition: Definition, expected: Outcome
) -> None:
    assert outcome_of_failure(claimed(), TOKEN, definition, Failed(failure, repeats_agent_error)) == expected


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (AgentUnreachable("refused"), RunReason.AGENT_UNREACHABLE),
        (AgentAddressRefused("refused"), RunReason.AGENT_UNREACHABLE),
        (AgentError("500"), RunReason.AGENT_ERROR),
        (OutcomeUnknown("silence"), RunReason.OUTCOME_UNKNOWN),
    ],
)
def test_retries_end_with_the_window_and_keep_the_last_reason(
    failure: AgentCallFailed, reason: RunReason
) -> None:
    run = claimed(attempt=9, waited_seconds=545)
    found = outcome_of_failure(run, TOKEN, RESENDS, Failed(failure, repeats_agent_error=True))
    assert found == failed(failure.message, reason)


def test_the_last_retry_is_the_one_that_still_fits_the_window() -> None:
    run = claimed(attempt=9, waited_seconds=530)
    found = outcome_of_failure(run, TOKEN, DEFINITION, Failed(AgentUnreachable("refused"), True))
    assert found == again("refused", 60)


def test_a_window_of_zero_seconds_tries_once() -> None:
    definition = replace(DEFINITION, retry_window_seconds=0)
    found = outcome_of_failure(claimed(), TOKEN, definition, Failed(AgentUnreachable("refused"), True))
    assert found == failed("refused", RunReason.AGENT_UNREACHABLE)


def test_a_wait_that_the_agent_asks_for_beyond_the_window_ends_the_run() -> None:
    failure = AgentUnreachable("come back tomorrow", retry_after_seconds=86_400)
    found = outcome_of_failure(claimed(), TOKEN, DEFINITION, Failed(failure, True))
    assert found == failed("come back tomorrow", RunReason.AGENT_UNREACHABLE)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (2_000, 60)]
)
def test_waits_double_up_to_a_minute(attempt: int, seconds: float) -> None:
    run = claimed(attempt=attempt)
    failing = Failed(AgentUnreachable("refused"), repeats_agent_error=True)
    assert [
        outcome_of_failure(run, TOKEN, DEFINITION, failing),
        outcome_of_wait(run, TOKEN, DEFINITION, "refused"),
    ] == [again("refused", seconds), again("refused", seconds, RunReason.OURS)]


def test_partial_output_is_kept_with_a_failure() -> None:
    partial = [{"type": "text", "content": "half\x00"}]
    found = outcome_of_failure(claimed(), TOKEN, DEFINITION, Failed(OutcomeUnknown("cut"), False, partial))
    assert found == replace(
        failed("cut", RunReason.OUTCOME_UNKNOWN), output=[{"type": "text", "content": "half\ufffd"}]
    )


def test_an_agent_s_long_words_are_cut() -> None:
    found = outcome_of_failure(claimed(), TOKEN, DEFINITION, Failed(AgentRejected("x" * 5_000), False))
    assert found == failed("x" * MAX_ERROR_LENGTH, RunReason.AGENT_ERROR)


@pytest.mark.parametrize(
    ("definition", "output", "expected"),
    [
        (DEFINITION, None, Outcome(RUN, TOKEN, RunStatus.DELIVERED, delivered=True)),
        (
            replace(DEFINITION, finishes_on_task=True),
            None,
            Outcome(RUN, TOKEN, RunStatus.RUNNING, delivered=True),
        ),
        (DEFINITION, [], Outcome(RUN, TOKEN, RunStatus.SUCCEEDED, output=[], delivered=True)),
        (
            replace(DEFINITION, finishes_on_task=True),
            [{"content": "hi"}],
            Outcome(RUN, TOKEN, RunStatus.SUCCEEDED, output=[{"content": "hi"}], delivered=True),
        ),
    ],
)
def test_what_a_success_makes_of_a_run(
    definition: Definition, output: list[dict[str, str]] | None, expected: Outcome
) -> None:
    found = outcome_of_success(
        claimed(),
        TOKEN,
        definition,
        [dict(content) for content in output or []] if output is not None else None,
    )
    assert found == expected


def test_what_is_ours_waits_and_then_fails_as_ours() -> None:
    assert [
        outcome_of_wait(claimed(), TOKEN, DEFINITION, "the authorizer is away"),
        outcome_of_wait(claimed(waited_seconds=600), TOKEN, DEFINITION, "the authorizer is away"),
    ] == [
        again("the authorizer is away", 1, RunReason.OURS),
        failed("the authorizer is away", RunReason.OURS),
    ]


def test_a_skip_says_why() -> None:
    found = outcome_of_skip(claimed(), TOKEN, RunReason.DENIED, "agent.execute is denied")
    assert found == Outcome(RUN, TOKEN, RunStatus.SKIPPED, RunReason.DENIED, "agent.execute is denied")
