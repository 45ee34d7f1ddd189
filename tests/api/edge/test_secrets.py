"""Prompts, keys and tokens that come in are in no log, metric or error; nor is where our code lies."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import rows
from agentex.errors import Unauthorized
from agentex.resources import Resources
from agentex.settings import Settings
from agentex.telemetry.logs import configure_logs, log_formatter
from tests.api.app.test_every_route import BEFORE, HEADERS, QUERIES, Asked, each_request
from tests.api.app.test_every_route import world as world  # noqa: PLC0414 - a fixture
from tests.api.ledger.stage import fetch
from tests.support.acp_replies import Reply
from tests.support.acp_server import AcpServer
from tests.support.api import TEXT, UNKNOWN_ID, Json
from tests.support.authz import ScriptedAuthz

PROMPT = "marked-prompt-7d1f"
CREDENTIAL = "marked-credential-9a3c"
QUERY = "marked-query-51be"
FAULT = "marked-fault-c0de"
CREDENTIALS = {
    "authorization": f"Bearer {CREDENTIAL}",
    "x-api-key": CREDENTIAL,
    "x-agent-api-key": CREDENTIAL,
    "x-acting-user-api-key": CREDENTIAL,
    "cookie": f"session={CREDENTIAL}",
}
# Where an operator puts what is his, and no validator looks.
FREE = {
    "params",
    "task_params",
    "task_metadata",
    "state",
    "metadata",
    "checkpoint",
    "input",
    "output",
    "data",
}
_OF_OURS = re.compile(r"Traceback|File \"|\.py\b|site-packages|asyncpg|sqlalchemy|SELECT |INSERT ", re.ASCII)


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """All that the process would write to standard error at its most talkative, but for the test's client."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(log_formatter(Settings()))
    handler.addFilter(lambda record: not record.name.startswith(("httpx", "httpcore")))
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    configure_logs(Settings(log_level="debug"))
    root.handlers[:] = [*handlers, handler]
    yield written
    root.handlers[:] = handlers
    root.setLevel(before)


def marked(value: Any) -> Any:
    """The body with the prompt wherever its words or an operator's own values stand."""
    if isinstance(value, dict):
        found = {key: marked(each) for key, each in cast("Json", value).items()}
        return {key: each | {"own": PROMPT} if key in FREE else each for key, each in found.items()}
    if isinstance(value, list):
        return [marked(each) for each in cast("list[Any]", value)]
    return PROMPT if value == TEXT["content"] else value


def broken(value: Any) -> list[Any]:
    """Bodies that are refused, each with the prompt at another wrong place."""
    if not isinstance(value, dict):
        return [[PROMPT], {"content": PROMPT}]
    given = cast("Json", value)
    wrong: list[Any] = [{**given, key: {"content": [PROMPT], PROMPT: PROMPT}} for key in given]
    wrong += [{**given, key: [PROMPT]} for key in given]
    # What type and author are is said, for these are words of the wire.
    message = {"type": "text", "author": "user", "content": {"content": PROMPT}, PROMPT: PROMPT}
    wrong += [{**given, key: message} for key in given if key in {"content", "state", "initial_input"}]
    return [*wrong, [PROMPT], PROMPT]


def url_of(asked: Asked, world: dict[str, str]) -> tuple[str, Json | None, dict[str, str]]:
    given = HEADERS.get(asked.path, {})
    filled = json.dumps([asked.path + QUERIES.get(f"{asked.method} {asked.path}", ""), asked.body, given])
    for word, value in world.items():
        filled = filled.replace(f"{{{word}}}", value)
    url, body, headers = json.loads(filled)
    mark = f"token={QUERY}&api_key={QUERY}"
    return f"{url}{'&' if '?' in url else '?'}{mark}", body, CREDENTIALS | headers


def check_refusal(answer: httpx2.Response) -> None:
    """An answer that says no, or that something went wrong, tells nothing that it was told."""
    is_error = answer.status_code >= 400 or '"error":{' in answer.text
    shown = answer.text + str(dict(answer.headers))
    assert CREDENTIAL not in shown
    if is_error:
        assert [mark for mark in (PROMPT, QUERY, FAULT) if mark in shown] == [], shown
        assert _OF_OURS.findall(shown) == [], shown


async def send(client: httpx2.AsyncClient, asked: Asked, world: dict[str, str], body: Any) -> httpx2.Response:
    url, _, headers = url_of(asked, world)
    if url.partition("?")[0].endswith("/stream"):
        # It has no end while its task runs; a cursor that is none ends it at once.
        headers = headers | {"last-event-id": "none"}
    answer = await client.request(asked.method, url, json=body, headers=headers)
    check_refusal(answer)
    return answer


async def check_process(client: httpx2.AsyncClient, logs: io.StringIO) -> None:
    metrics = (await client.get("/metrics")).text
    written = logs.getvalue()
    for mark in (PROMPT, CREDENTIAL, QUERY, FAULT):
        assert mark not in metrics
        assert mark not in written, written
    assert str(Path.cwd()) not in written


@each_request
async def test_what_comes_in_is_in_no_log_metric_or_error(
    client: httpx2.AsyncClient,
    resources: Resources,
    acp_server: AcpServer,
    world: dict[str, str],
    logs: io.StringIO,
    asked: Asked,
) -> None:
    route = f"{asked.method} {asked.path}"
    if route in BEFORE:
        await fetch(resources, BEFORE[route])
    _, body, _ = url_of(asked, world)
    good = marked(body) if body is not None else None

    nobody = {word: UNKNOWN_ID if word.endswith("_id") else "nobody" for word in world}
    await send(client, asked, nobody, good)
    for wrong in broken(good) if body is not None else [[PROMPT]]:
        await send(client, asked, world, wrong)
    url, _, headers = url_of(asked, world)
    if asked.method != "GET":
        half = json.dumps({"content": PROMPT})[:-1]
        for kind in ("application/json", "text/plain"):
            answer = await client.request(
                asked.method, url, content=half, headers={**headers, "content-type": kind}
            )
            check_refusal(answer)
    acp_server.script("message/send", [Reply(status=500)])
    await send(client, asked, world, good)

    await check_process(client, logs)
    for request in acp_server.requests:
        assert CREDENTIAL not in str(request.headers)


class Fault(Exception):  # noqa: N818 - a word of this service's
    """Nobody foresaw it."""


@each_request
async def test_a_fault_of_ours_tells_nothing_of_what_it_was_about(
    client: httpx2.AsyncClient,
    authz: ScriptedAuthz,
    world: dict[str, str],
    logs: io.StringIO,
    asked: Asked,
) -> None:
    _, body, _ = url_of(asked, world)
    good = marked(body) if body is not None else None

    async def refuse(session: AsyncSession) -> None:
        # Postgres quotes what it was given.
        await rows(session, f"SELECT CAST('{FAULT}' AS integer)")

    async def fail(session: AsyncSession) -> None:
        raise Fault(FAULT) from KeyError(FAULT)

    async def be_away(session: AsyncSession) -> None:
        raise ConnectionResetError(104, FAULT)

    async def deny(session: AsyncSession) -> None:
        raise Unauthorized

    statuses: list[int] = []
    for fault in (refuse, fail, be_away, deny):
        authz.while_asked = fault
        statuses.append((await send(client, asked, world, good)).status_code)

    assert statuses in ([500, 500, 503, 401], [422] * 4, [200] * 4), statuses
    await check_process(client, logs)
    if statuses[0] == 500:
        written = logs.getvalue()
        assert "tests.api.edge.test_secrets.Fault" in written
        assert "sqlstate=22P02" in written


def test_a_marker_would_be_found(logs: io.StringIO) -> None:
    logging.getLogger("agentex.any").info("words", extra={"prompt": PROMPT})
    assert PROMPT in logs.getvalue()
    assert replace(Asked("GET", "/x", None), body={"content": TEXT}).body is not None
    assert marked({"content": TEXT, "state": {}}) == {
        "content": TEXT | {"content": PROMPT},
        "state": {"own": PROMPT},
    }
