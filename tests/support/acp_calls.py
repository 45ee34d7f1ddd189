"""Calls to a scripted agent, as the tests of the client and of its answers make them."""

from __future__ import annotations

from dataclasses import replace

from agentex.acp.messages import AcpCall, AcpMethod, JsonObject

INPUT_TEXT = "the secret prompt"
PARAMS: JsonObject = {
    "agent": {"id": "a1", "name": "greeter"},
    "task": {"id": "t1", "name": "scheduled-run:s1:f1"},
    "content": {"type": "text", "author": "user", "content": INPUT_TEXT},
}


def acp_call(url: str = "http://127.0.0.1:28100", method: str = AcpMethod.EVENT_SEND) -> AcpCall:
    """A call with request id r-1, key k-1 and 5 seconds of time."""
    return AcpCall(
        acp_url=url, method=method, params=PARAMS, request_id="r-1", idempotency_key="k-1", timeout_seconds=5
    )


def message_call(url: str = "http://127.0.0.1:28100") -> AcpCall:
    """The same as message/send."""
    return acp_call(url, AcpMethod.MESSAGE_SEND)


def within(call: AcpCall, timeout_seconds: float) -> AcpCall:
    """The call with another time limit."""
    return replace(call, timeout_seconds=timeout_seconds)
