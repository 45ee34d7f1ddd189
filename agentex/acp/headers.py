"""The headers of a request to an agent: ours, and those of a client that may go on to it.

A client's `x-*` headers go on, as agents read them (wire.md §1b), but for those that are credentials of this
server or of a proxy before it, that a proxy writes, or that are about the client's own connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agentex.acp.messages import AcpCall
from agentex.errors import InvalidInput

ACCEPT_JSON = "application/json"
ACCEPT_STREAM = "application/x-ndjson, application/json"
USER_AGENT = "agentex"

# Visible ASCII: no CR, LF, NUL or blank, so a value is one header and arrives as it was sent.
_SAFE_VALUE = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)
# W3C Trace Context, https://www.w3.org/TR/trace-context/ §3.2; later versions may append fields.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]+)?"
)
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)

# RFC 9110 §5.6.2, a token; and what stands in one line whoever reads it.
_PASSED_NAME = re.compile(r"x-[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_PASSED_VALUE = re.compile(r"[\x20-\x7e\t]*", re.ASCII)
# Servers of agents take 8 kB a header and 16 to 64 kB in all.
MAX_PASSED_HEADERS = 64
MAX_PASSED_VALUE_BYTES = 4_096
MAX_PASSED_BYTES = 16_384
_KEPT_BACK = frozenset(
    {
        # Credentials, ours and those that proxies leave behind.
        "x-api-key",
        "x-agent-api-key",
        "x-acting-user-api-key",
        "x-acting-as-agent",
        "x-access-token",
        "x-auth-token",
        "x-amz-security-token",
        "x-csrf-token",
        "x-xsrf-token",
        "x-ssl-client-cert",
        # Where the client is, as proxies say.
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-remote-user",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        # Ours: the id that the agent echoes. And what is about one connection.
        "x-request-id",
        "x-accel-buffering",
        "x-should-retry",
    }
)
_KEPT_BACK_PREFIXES = (
    "x-forwarded-",
    "x-original-",
    "x-envoy-",
    "x-stainless-",
    "x-auth-request-",
    "x-amzn-oidc-",
    "x-goog-iap-",
    "x-goog-authenticated-user-",
    "x-ms-token-",
    "x-ms-client-principal",
)


def request_headers(call: AcpCall, accept: str) -> dict[str, str]:
    """All headers that we choose for this call; aiohttp adds host and content-length only.

    Raises InvalidInput for an id or key that is not 1 to 512 visible ASCII characters.
    """
    headers = {
        **call.passed_headers,
        "content-type": "application/json",
        "accept": accept,
        # What every Python can unpack; the unpacked size is what the limit counts.
        "accept-encoding": "gzip, deflate",
        "user-agent": USER_AGENT,
        "x-request-id": _safe("x-request-id", call.request_id),
    }
    if call.idempotency_key is not None:
        headers["idempotency-key"] = _safe("idempotency-key", call.idempotency_key)
    return headers | trace_headers(call.trace_headers)


def passed_headers(given: Mapping[str, str]) -> dict[str, str]:
    """What goes on of a client's headers, in lower case; values that are not printable ASCII stay behind.

    Raises InvalidInput, naming the header, for more or larger ones than an agent can be expected to take.
    """
    passed: dict[str, str] = {}
    size = 0
    for given_name, value in given.items():
        name = given_name.lower()
        if not _goes_on(name) or not _PASSED_VALUE.fullmatch(value):
            continue
        size += len(name) + len(value)
        if len(value) > MAX_PASSED_VALUE_BYTES:
            raise InvalidInput(name, f"has {len(value)} bytes; {MAX_PASSED_VALUE_BYTES} go on to an agent")
        if len(passed) == MAX_PASSED_HEADERS:
            raise InvalidInput(name, f"is one too many; {MAX_PASSED_HEADERS} x-* headers go on to an agent")
        if size > MAX_PASSED_BYTES:
            raise InvalidInput(name, f"makes the x-* headers larger than {MAX_PASSED_BYTES} bytes in all")
        passed[name] = value
    return passed


def _goes_on(name: str) -> bool:
    return (
        name.startswith("x-")
        and name not in _KEPT_BACK
        and not name.startswith(_KEPT_BACK_PREFIXES)
        and _PASSED_NAME.fullmatch(name) is not None
    )


def trace_headers(given: Mapping[str, str]) -> dict[str, str]:
    """The W3C trace headers among the given ones; malformed ones are dropped, as the specification says."""
    lower = {name.lower(): value for name, value in given.items()}
    parent, state = lower.get("traceparent", ""), lower.get("tracestate", "")
    if not _TRACEPARENT.fullmatch(parent):
        return {}
    if not _TRACESTATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _safe(name: str, value: str) -> str:
    if not _SAFE_VALUE.fullmatch(value):
        raise InvalidInput(name, f"{value[:80]!r} is not 1 to 512 visible ASCII characters")
    return value
