"""What every answer carries, so that a browser makes nothing of it that it is not; a route's own stand."""

from __future__ import annotations

from starlette.types import Message

RawHeaders = list[tuple[bytes, bytes]]

_ALWAYS: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
# What is not HTML loads nothing, and stands in nobody's frame.
_NO_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
# Answers are somebody's: neither a proxy nor a browser keeps one for the next.
_NOT_KEPT = (b"cache-control", b"no-store")
# A year, as browsers' lists ask for at least.
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")
# JSON, problems, NDJSON.
_JSON = b"json"
_HTML = b"text/html"


def add_answer_headers(message: Message, request_id: str, *, over_https: bool) -> None:
    """Add them to the start of an answer."""
    headers: RawHeaders = list(message.get("headers", ()))
    message["headers"] = headers
    given = dict(headers)
    content_type = given.get(b"content-type", b"")
    if b"x-request-id" in given:
        headers[:] = [header for header in headers if header[0] != b"x-request-id"]
    headers.append((b"x-request-id", request_id.encode("latin-1")))
    headers += [header for header in _ALWAYS if header[0] not in given]
    if not content_type.startswith(_HTML) and _NO_PAGE[0] not in given:
        headers.append(_NO_PAGE)
    if _JSON in content_type and _NOT_KEPT[0] not in given:
        headers.append(_NOT_KEPT)
    if over_https and _HTTPS_ONLY[0] not in given:
        headers.append(_HTTPS_ONLY)
