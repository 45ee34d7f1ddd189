"""The outermost layer of the API: who asks, request ids, metrics, headers of answers, and the last catch."""

from __future__ import annotations

import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentex.ids import new_id
from agentex.noted import note_in
from agentex.telemetry.metrics import REQUEST_SECONDS, REQUESTS, UNEXPECTED_ERRORS
from agentex.web.answer_headers import add_answer_headers
from agentex.web.proxies import Proxies

log = logging.getLogger(__name__)

# A caller's own id is taken over when it can stand in a header and in a log line.
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Methods outside these would give the metrics a label of the caller's making.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Edge:
    """Wraps the whole app, its own error answers too."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        self._proxies.unveil(scope, headers)
        exchange = _Exchange(scope, send, headers.get(b"x-request-id", b"").decode("latin-1"))
        try:
            await self._app(scope, receive, exchange.send)
        except Exception:
            # Answered already, as a problem without a trace, or cut off in the middle of an answer.
            UNEXPECTED_ERRORS.labels(where="api").inc()
            log.exception(
                "a request ended in an error nobody foresaw",
                extra={
                    "action": "request.failed",
                    "route": exchange.route,
                    "request_id": exchange.request_id,
                },
            )
        finally:
            exchange.measure()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send, given: str) -> None:
        self.request_id = given if _SANE_ID.fullmatch(given) else str(new_id())
        note_in(scope).request_id = self.request_id
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        # What a client sees of a connection that ends without an answer.
        self._status = 500

    @property
    def route(self) -> str:
        """The route's template, so that ids make no label each; `none` where no route matched."""
        return getattr(self._scope.get("route"), "path", "none")

    async def send(self, message: Message) -> None:
        """Send on, with the request id and what makes an answer harmless in a browser."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            over_https = self._scope.get("scheme") == "https"
            add_answer_headers(message, self.request_id, over_https=over_https)
        await self._send(message)

    def measure(self) -> None:
        """Count the request under its route."""
        method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
        REQUESTS.labels(method=method, route=self.route, status=str(self._status)).inc()
        REQUEST_SECONDS.labels(method=method, route=self.route).observe(time.perf_counter() - self._began)
