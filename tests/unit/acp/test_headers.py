"""Which headers go to an agent, and that no value can start another one."""

from dataclasses import replace

import pytest

from agentex.acp.headers import (
    ACCEPT_JSON,
    MAX_PASSED_BYTES,
    MAX_PASSED_HEADERS,
    MAX_PASSED_VALUE_BYTES,
    passed_headers,
    request_headers,
    trace_headers,
)
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


def test_a_clients_headers_cannot_take_the_place_of_ours():
    call = replace(
        acp_call(), passed_headers={"x-tenant": "a", "x-request-id": "theirs", "user-agent": "evil"}
    )
    headers = request_headers(call, ACCEPT_JSON)
    assert (headers["x-tenant"], headers["x-request-id"], headers["user-agent"]) == ("a", "r-1", "agentex")


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "cookie",
        "connection",
        "host",
        "content-length",
        "x-api-key",
        "X-API-Key",
        "x-agent-api-key",
        "x-acting-as-agent",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "x-real-ip",
        "x-stainless-retry-count",
        "x-request-id",
        "x-amzn-oidc-data",
        "x-goog-iap-jwt-assertion",
        "x-original-url",
    ],
)
def test_credentials_and_what_proxies_write_stay_behind(name: str):
    assert passed_headers({name: "v", "x-tenant": "a"}) == {"x-tenant": "a"}


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b", "caf\xe9", "\x7f"])
def test_a_value_that_could_start_another_header_stays_behind(value: str):
    assert passed_headers({"x-tenant": value}) == {}


@pytest.mark.parametrize("name", ["x-a b", "x-a:b", "x-a\r\nx-b", "x-\xe9", "x-"])
def test_a_name_that_is_none_stays_behind(name: str):
    assert passed_headers({name: "v"}) == {}


@pytest.mark.parametrize("value", ["", "a b\tc", "~" * MAX_PASSED_VALUE_BYTES])
def test_printable_values_go_on_as_they_are_under_names_in_lower_case(value: str):
    assert passed_headers({"X-Tenant": value}) == {"x-tenant": value}


def test_a_value_that_is_too_large_is_named_and_not_quoted():
    with pytest.raises(InvalidInput) as caught:
        passed_headers({"x-tenant": "s" * (MAX_PASSED_VALUE_BYTES + 1)})
    assert caught.value.message == "x-tenant: has 4097 bytes; 4096 go on to an agent"


def test_headers_that_are_too_large_together_are_refused():
    each = MAX_PASSED_VALUE_BYTES - len("x-h0")
    given = {f"x-h{number}": "s" * each for number in range(MAX_PASSED_BYTES // MAX_PASSED_VALUE_BYTES)}
    assert passed_headers(given) == given
    with pytest.raises(InvalidInput) as caught:
        passed_headers({**given, "x-more": ""})
    assert caught.value.message == "x-more: makes the x-* headers larger than 16384 bytes in all"


def test_as_many_headers_as_an_agent_takes_go_on_and_no_more():
    given = {f"x-h{number}": "1" for number in range(MAX_PASSED_HEADERS)}
    assert passed_headers(given) == given
    with pytest.raises(InvalidInput):
        passed_headers({**given, "x-more": "1"})
