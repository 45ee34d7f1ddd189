"""Paths behind an agent's address: one segment after the other, and nothing that leads out of it."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from agentex.errors import BadRequest

FORWARD_PREFIX = "/agents/forward/name/"
# RFC 3986 §3.3: what stands in a segment as it is.
_PCHAR = "!$&'()*+,;=:@-._~"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\/]")
# Encoded twice: whoever decodes twice would find a dot, a slash, a backslash or a NUL.
_ENCODED_AGAIN = re.compile(r"%(2e|2f|5c|00|25)", re.IGNORECASE)
_DOTS = frozenset({".", ".."})


def own_path(raw: str, field: str) -> str:
    """A path as it came, percent-encoded or not, as it may be put behind `{acp_url}/`.

    Raises BadRequest for what could name anything but a route of the agent's own: `..`, encoded slashes and
    backslashes, empty segments (`//host`, `http://host`), control characters; and for `api`, which is its
    JSON-RPC: that is reached by /rpc, where tasks are made and rights are asked for.
    """
    if "?" in raw or "#" in raw:
        raise _refused(field, raw, "has a query or a fragment")
    *inner, last = raw.split("/")
    if not all(inner):
        raise _refused(field, raw, "has an empty segment")
    path = "/".join(_segment(segment, field, raw) for segment in (*inner, last))
    if path.rstrip("/") == "api":
        raise _refused(field, raw, "is the agent's JSON-RPC; send that to /agents/name/{name}/rpc")
    return path


def forward_path(agent_name: str, path: str) -> str:
    """Where this API takes requests for that path."""
    return f"{FORWARD_PREFIX}{agent_name}/{path}"


def _segment(segment: str, field: str, raw: str) -> str:
    try:
        decoded = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise _refused(field, raw, "is not UTF-8") from None
    # `..;x` is `..` to servers that know parameters of segments.
    if decoded.partition(";")[0] in _DOTS:
        raise _refused(field, raw, "has a segment of dots")
    if _CONTROL.search(decoded) or _ENCODED_AGAIN.search(decoded):
        raise _refused(field, raw, "has an encoded slash, a backslash or a control character")
    return quote(decoded, safe=_PCHAR)


def _refused(field: str, raw: str, why: str) -> BadRequest:
    return BadRequest(f"{field} {raw[:80]!r} {why}")
