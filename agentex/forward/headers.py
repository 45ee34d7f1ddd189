"""Which headers go through, in both directions: closed lists, without credentials, cookies and hop-by-hop."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agentex.acp.headers import trace_headers

# What an agent may want to know of a request, of GitHub's and of Slack's. The signatures say nothing but that
# the body is genuine, so an agent may check them as well.
_TO_AGENT = frozenset(
    {
        "accept",
        "accept-language",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "range",
        "user-agent",
        "x-github-delivery",
        "x-github-event",
        "x-github-hook-id",
        "x-github-hook-installation-target-id",
        "x-github-hook-installation-target-type",
        "x-hub-signature-256",
        "x-request-id",
        "x-slack-request-timestamp",
        "x-slack-retry-num",
        "x-slack-retry-reason",
        "x-slack-signature",
    }
)
_FROM_AGENT = frozenset(
    {
        "accept-ranges",
        "cache-control",
        "content-disposition",
        "content-language",
        "content-range",
        "content-type",
        "etag",
        "last-modified",
        "retry-after",
        "vary",
    }
)
# Printable ASCII: it cannot start another header.
_VALUE = re.compile(r"[\x20-\x7e]{0,4096}", re.ASCII)
# What an agent serves is not this API's: a browser that opens it must not run it as such.
_ALWAYS = {"content-security-policy": "sandbox", "x-content-type-options": "nosniff"}


def to_agent(given: Mapping[str, str]) -> dict[str, str]:
    """The headers of the request to the agent."""
    passed = {
        name: given[name] for name in sorted(_TO_AGENT) if name in given and _VALUE.fullmatch(given[name])
    }
    # Its bytes go on as they come, and this server's limit is on bytes that are not packed.
    return {"user-agent": "agentex", **passed, **trace_headers(given), "accept-encoding": "identity"}


def from_agent(given: Mapping[str, str]) -> dict[str, str]:
    """The headers of the answer."""
    passed = {name.lower(): value for name, value in given.items() if name.lower() in _FROM_AGENT}
    length = given.get("content-length", "")
    # Of an answer that was packed all the same, it is not the length of what goes on.
    if length.isdigit() and "content-encoding" not in given:
        passed["content-length"] = length
    return {**{name: value for name, value in passed.items() if _VALUE.fullmatch(value)}, **_ALWAYS}
