"""Cases of what an agent may do to a request, each with what becomes of the run (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.acp_replies import Reply

# Retries come 1, 2, 4 and 8 s after the attempt before, so the fifth attempt after 15 s at least, and a sixth
# after 31: a window of 30 s has no room for it, and 15 s to spare for the fifth on a machine that is busy.
RETRY_WINDOW_SECONDS = 30
ATTEMPTS_IN_WINDOW = 5
TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Ended:
    """How a run ended, in how many attempts, and how many requests of each method the agent had for it."""

    status: str
    reason: str | None
    attempt: int
    requests: Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """What the agent does to one method's requests; `repeat`: to each of them, not only to the first."""

    name: str
    method: str
    reply: Reply
    ended: Ended
    repeat: bool = True
    policies: Mapping[str, object] = field(default_factory=dict[str, object])


def _failed(reason: str, attempt: int, **requests: int) -> Ended:
    return Ended(
        "failed", reason, attempt, {name.replace("_", "/"): count for name, count in requests.items()}
    )


def _well(status: str, attempt: int, **requests: int) -> Ended:
    return Ended(status, None, attempt, {name.replace("_", "/"): count for name, count in requests.items()})


_BUSY = {"retry-after": "1"}
# What certainly was not begun.
NOT_BEGUN = {
    "429": Reply(status=429),
    "503 with Retry-After": Reply(status=503, headers=_BUSY),
}
# What the agent's own fault is.
SERVER_ERRORS = {
    "500": Reply(status=500),
    "503 without Retry-After": Reply(status=503),
    "408": Reply(status=408),
    "JSON-RPC -32603": Reply(error_code=-32603),
    "JSON-RPC -32000": Reply(error_code=-32000),
}
# What the agent takes for a fault of the request.
REFUSALS = {
    "400": Reply(status=400),
    "404": Reply(status=404),
    "JSON-RPC -32600": Reply(error_code=-32600),
    "JSON-RPC -32601": Reply(error_code=-32601),
    "JSON-RPC -32602": Reply(error_code=-32602),
}
# What is no answer in the protocol.
GARBAGE = {
    "garbage": Reply(body="<html>hello</html>"),
    "garbage instead of HTTP": Reply(raw="I am no HTTP server\r\n\r\n"),
    "wrong id": Reply(answer_id="another"),
    "redirect": Reply(status=302, headers={"location": "http://127.0.0.1:1/"}),
}
# What leaves open whether the agent has begun.
UNKNOWN = {
    "hang": Reply(hang="before"),
    "close": Reply(close="close"),
    "reset": Reply(close="reset"),
}


def _async_cases() -> list[Case]:
    cases: list[Case] = []
    n = ATTEMPTS_IN_WINDOW
    for kind, reply in NOT_BEGUN.items():
        ended = _failed("agent_unreachable", n, task_create=1, event_send=n)
        cases.append(Case(f"event {kind}", "event/send", reply, ended))
        cases.append(
            Case(f"task {kind}", "task/create", reply, _failed("agent_unreachable", n, task_create=n))
        )
    for kind, reply in SERVER_ERRORS.items():
        ended = _failed("agent_error", n, task_create=1, event_send=n)
        cases.append(Case(f"event {kind}", "event/send", reply, ended))
        cases.append(Case(f"task {kind}", "task/create", reply, _failed("agent_error", n, task_create=n)))
    for kind, reply in REFUSALS.items():
        ended = _failed("agent_error", 1, task_create=1, event_send=1)
        cases.append(Case(f"event {kind}", "event/send", reply, ended))
        cases.append(Case(f"task {kind}", "task/create", reply, _failed("agent_error", 1, task_create=1)))
    for kind, reply in GARBAGE.items():
        ended = _failed("agent_protocol", 1, task_create=1, event_send=1)
        cases.append(Case(f"event {kind}", "event/send", reply, ended))
        cases.append(Case(f"task {kind}", "task/create", reply, _failed("agent_protocol", 1, task_create=1)))
    for kind, reply in UNKNOWN.items():
        ended = _failed("outcome_unknown", 1, task_create=1, event_send=1)
        cases.append(Case(f"event {kind}", "event/send", reply, ended))
        cases.append(Case(f"task {kind}", "task/create", reply, _failed("outcome_unknown", 1, task_create=1)))
    return cases


def _sync_cases() -> list[Case]:
    cases: list[Case] = []
    groups = [
        (NOT_BEGUN, _failed("agent_unreachable", ATTEMPTS_IN_WINDOW, message_send=ATTEMPTS_IN_WINDOW)),
        (SERVER_ERRORS, _failed("agent_error", 1, message_send=1)),
        (REFUSALS, _failed("agent_error", 1, message_send=1)),
        (GARBAGE, _failed("agent_protocol", 1, message_send=1)),
        (UNKNOWN, _failed("outcome_unknown", 1, message_send=1)),
    ]
    for replies, ended in groups:
        cases += [Case(f"message {kind}", "message/send", reply, ended) for kind, reply in replies.items()]
    cut = Reply(deltas=3, tail='{"jsonrpc": "2.0", "resu', cut=True)
    unknown = _failed("outcome_unknown", 1, message_send=1)
    cases.append(Case("message stream cut", "message/send", cut, unknown))
    cases.append(Case("message stream hang", "message/send", Reply(deltas=3, hang="in_stream"), unknown))
    error = Reply(deltas=3, error_code=-32603)
    cases.append(
        Case("message stream error", "message/send", error, _failed("agent_error", 1, message_send=1))
    )
    return cases


_RESEND: dict[str, object] = {"resend_unknown": True}
# For a first request that goes wrong, and a second one that does not.
_DELIVERED_AT_SECOND = _well("delivered", 2, task_create=1, event_send=2)
_ANSWERED_AT_SECOND = _well("succeeded", 2, message_send=2)
_OPENED_AT_SECOND = _well("delivered", 2, task_create=2, event_send=1)


def _once_cases() -> list[Case]:
    event, task, message = "event/send", "task/create", "message/send"
    failed, closed = SERVER_ERRORS["500"], UNKNOWN["close"]
    unknown = _failed("outcome_unknown", ATTEMPTS_IN_WINDOW, task_create=1, event_send=ATTEMPTS_IN_WINDOW)
    protocol = _failed("agent_protocol", 1, task_create=1, event_send=1)
    return [
        Case("event 500 once", event, failed, _DELIVERED_AT_SECOND, repeat=False),
        Case("task 500 once", task, failed, _OPENED_AT_SECOND, repeat=False),
        Case("event 429 once", event, NOT_BEGUN["429"], _DELIVERED_AT_SECOND, repeat=False),
        Case("message 429 once", message, NOT_BEGUN["429"], _ANSWERED_AT_SECOND, repeat=False),
        Case("event hang once, resent", event, UNKNOWN["hang"], _DELIVERED_AT_SECOND, False, _RESEND),
        Case("event close once, resent", event, closed, _DELIVERED_AT_SECOND, False, _RESEND),
        Case("message close once, resent", message, closed, _ANSWERED_AT_SECOND, False, _RESEND),
        Case("event close always, resent", event, closed, unknown, policies=_RESEND),
        Case("event garbage is not resent", event, GARBAGE["garbage"], protocol, policies=_RESEND),
    ]


CASES = [*_async_cases(), *_sync_cases(), *_once_cases()]
