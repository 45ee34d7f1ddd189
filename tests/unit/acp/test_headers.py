"""Which headers go to an agent, and that no value can start another one."""

from dataclasses import replace

import pytest

from agentex.acp.headers import ACCEPT_JSON, request_headers, trace_headers
from agentex.errors import InvalidInput
from tests.support.acp_calls import acp_call

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_headers_of_a_call_are_these_and_no_others():
    call = replace(acp_call(), trace_headers={"Traceparent": PARENT, "tracestate": "a=1", "cookie": "c=1"})
    assert request_headers(call, ACCEPT_JSON) == {
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "user-agent": "agentex",
        "x-request-id": "r-1",
        "idempotency-key": "k-1",
        "traceparent": PARENT,
        "tracestate": "a=1",
    }


def test_without_a_key_no_idempotency_header_is_sent():
    assert "idempotency-key" not in request_headers(replace(acp_call(), idempotency_key=None), ACCEPT_JSON)


@pytest.mark.parametrize("value", ["", "a\r\nx-evil: 1", "a\nb", "a\0b", "a b", "café", "x" * 513])
def test_unsafe_idempotency_key_is_refused_before_anything_is_sent(value: str):
    with pytest.raises(InvalidInput) as caught:
        request_headers(replace(acp_call(), idempotency_key=value), ACCEPT_JSON)
    assert caught.value.field == "idempotency-key"


def test_unsafe_request_id_is_refused():
    with pytest.raises(InvalidInput) as caught:
        request_headers(replace(acp_call(), request_id="r\r\n1"), ACCEPT_JSON)
    assert caught.value.field == "x-request-id"


@pytest.mark.parametrize(
    "parent",
    [
        PARENT + "\r\nx: 1",
        "ff" + PARENT[2:],
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT.upper(),
        "garbage",
    ],
)
def test_malformed_traceparent_is_dropped_with_its_tracestate(parent: str):
    assert trace_headers({"traceparent": parent, "tracestate": "a=1"}) == {}


def test_malformed_tracestate_is_dropped_alone():
    assert trace_headers({"traceparent": PARENT, "tracestate": "a=1\r\nx: 1"}) == {"traceparent": PARENT}
