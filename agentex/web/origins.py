"""CORS: which pages of other origins may use this API from a browser. None unless they are named."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_READABLE = ("etag", "location", "retry-after", "x-request-id", "x-should-retry")
# Until the browser asks again whether it may.
_REMEMBERED_SECONDS = 600


def with_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app, whose answers pages of exactly these origins may read; their users' cookies may be sent."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_credentials=True,
        allow_methods=_METHODS,
        allow_headers=["*"],
        expose_headers=_READABLE,
        max_age=_REMEMBERED_SECONDS,
    )
