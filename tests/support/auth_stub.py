"""A remote authorizer (wire.md §4) on 127.0.0.1 with two users: it records what it is asked, and misbehaves.

alice and bob come with `authorization: Bearer alice`. Somebody may do anything to what was granted to them,
and to what is registered under it, and make anything; `deny` and `admins` say otherwise. What was never
registered is nobody's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.support.api import Json
from tests.support.local_app import serve

USERS = ("alice", "bob")


def principal(user: str, account: str = "acme") -> Json:
    return {"principal_type": "user", "user_id": user, "service_account_id": None, "account_id": account}


def name_of(who: Json) -> str:
    return who["user_id"] or who["service_account_id"]


@dataclass
class AuthStub:
    """deny: (operation, type) of which it says no. status: of a path instead of an answer; 0 hangs.

    asked: the bodies by path. sent: the headers that authn got.
    """

    deny: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    status: dict[str, int] = field(default_factory=dict[str, int])
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    admins: set[str] = field(default_factory=set[str])
    registered: dict[str, Json] = field(default_factory=dict[str, Json])
    granted: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    asked: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    sent: list[Json] = field(default_factory=list[Json])
    counts: Counter[str] = field(default_factory=Counter[str])
    url: str = ""
    _runner: web.AppRunner | None = None
    _asked_more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def asked_times(self, path: str, count: int) -> None:
        """Wait until so many requests for a path have come."""
        async with self._asked_more:
            await self._asked_more.wait_for(lambda: self.counts[path] >= count)

    async def __aenter__(self) -> AuthStub:
        app = web.Application()
        app.router.add_post("/v1/{path:.*}", self._answer)
        self._runner, self.url = await serve(app)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.match_info["path"].rpartition("/")[2]
        body: Json = await request.json()
        async with self._asked_more:
            self.counts[path] += 1
            self._asked_more.notify_all()
        self.asked.setdefault(path, []).append(body)
        if path == "authn":
            self.sent.append({name.lower(): value for name, value in request.headers.items()})
        scripted = self.status.get(path)
        if scripted == 0:
            await asyncio.Event().wait()
        if scripted is not None:
            headers = {"location": f"{self.url}/v1/elsewhere"}
            return web.json_response({}, status=scripted, headers=headers)
        if path in self.answers:
            return web.json_response(self.answers[path])
        status, said = getattr(self, f"_{path}")(request, body)
        return web.json_response(said, status=status)

    def _authn(self, request: web.Request, body: Json) -> tuple[int, Json]:
        user = request.headers.get("authorization", "").removeprefix("Bearer ")
        return (200, principal(user)) if user in USERS else (401, {})

    def _check(self, request: web.Request, body: Json) -> tuple[int, Json]:
        kind, selector = body["resource"]["type"], body["resource"]["selector"]
        if (body["operation"], kind) in self.deny:
            return 403, {}
        return (200 if self._has(name_of(body["principal"]), selector) else 403), {}

    def _has(self, name: str, selector: str) -> bool:
        if selector == "*" or name in self.admins:
            return True
        known = self.registered.get(selector)
        if known is None:
            return False
        parent = known["parent"]
        return (name, selector) in self.granted or (
            parent is not None and self._has(name, parent["selector"])
        )

    def _search(self, request: web.Request, body: Json) -> tuple[int, Json]:
        name, kind = name_of(body["principal"]), body["filter_resource"]
        if name in self.admins:
            return 200, {"unscoped": True}
        if ("read", kind) in self.deny:
            return 403, {}
        of_kind = [key for key, known in self.registered.items() if known["resource"]["type"] == kind]
        return 200, {"items": [key for key in of_kind if self._has(name, key)]}

    def _register(self, request: web.Request, body: Json) -> tuple[int, Json]:
        selector = body["resource"]["selector"]
        is_new = selector not in self.registered
        self.registered[selector] = body
        return (200 if is_new else 409), {}

    def _deregister(self, request: web.Request, body: Json) -> tuple[int, Json]:
        return (200 if self.registered.pop(body["resource"]["selector"], None) else 404), {}

    def _grant(self, request: web.Request, body: Json) -> tuple[int, Json]:
        self.granted.add((name_of(body["principal"]), body["resource"]["selector"]))
        return 200, {}

    def _revoke(self, request: web.Request, body: Json) -> tuple[int, Json]:
        self.granted.discard((name_of(body["principal"]), body["resource"]["selector"]))
        return 200, {}
