"""The headers of a request to an agent: a closed list, and values that cannot start another header."""

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


def request_headers(call: AcpCall, accept: str) -> dict[str, str]:
    """All headers that we choose for this call; aiohttp adds host and content-length only.

    Raises InvalidInput for an id or key that is not 1 to 512 visible ASCII characters.
    """
    headers = {
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
