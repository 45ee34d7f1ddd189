"""How large and how deep a request may be; beyond it is refused before it costs anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import psutil
import pytest
from fastapi.routing import iter_route_contexts
from starlette.types import Message

from agentex.app import create_app
from agentex.dev.ports import free_port
from agentex.resources import Resources
from agentex.settings import Settings
from agentex.web.guard import MAX_HEADER_BYTES, MAX_HEADERS, MAX_PATH_BYTES, MAX_QUERY_BYTES
from tests.api.app.test_serve import serving as process
from tests.api.app.test_serve import until_up
from tests.api.conftest import shared_app
from tests.support.api import UNKNOWN_ID, problem

MIB = 1_048_576
JSON = {"content-type": "application/json"}
# One for each limit that a body may have.
BODY_PATHS = ["/agents/register", f"/tasks/{UNKNOWN_ID}/rehydrate", "/checkpoints/put"]


class Sent:
    """A body of 100 MB in pieces of 64 KiB, which counts what was taken of it."""

    def __init__(self) -> None:
        self.taken = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        piece = b" " * 65_536
        for _ in range(1_600):
            self.taken += len(piece)
            yield piece


@pytest.mark.parametrize("path", BODY_PATHS)
@pytest.mark.parametrize("says_length", [True, False], ids=["with content-length", "without"])
async def test_a_body_of_100_mb_is_not_taken(resources: Resources, path: str, says_length: bool) -> None:
    sent = Sent()
    headers = JSON | ({"content-length": str(1_600 * 65_536)} if says_length else {})
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 1),
    }
    pieces, answer = sent.pieces(), list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": await anext(pieces), "more_body": True}

    async def send(message: Message) -> None:
        answer.append(message)

    await create_app(resources.settings, resources=resources)(scope, receive, send)

    assert answer[0]["status"] == 413
    limit = Settings().max_checkpoint_bytes if "checkpoints" in path else 4 * MIB
    if path.endswith("/rehydrate"):
        limit = Settings().max_restore_bytes
    assert sent.taken == 0 if says_length else 0 < sent.taken <= limit + 65_536


@pytest.mark.parametrize("chunked", [False, True], ids=["with content-length", "chunked"])
async def test_100_mb_are_not_kept_in_memory(settings: Settings, tmp_path: Path, chunked: bool) -> None:
    port, size = free_port(), 100 * MIB
    with process(settings, port, tmp_path) as server:
        await until_up(server, port)
        before = psutil.Process(server.pid).memory_info().rss

        async def body() -> AsyncIterator[bytes]:
            for _ in range(size // MIB):
                yield b" " * MIB

        headers = JSON if chunked else JSON | {"content-length": str(size)}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            answer = await client.post("/checkpoints/put", content=body(), headers=headers)
            after = psutil.Process(server.pid).memory_info().rss
            assert (await client.get("/healthz")).status_code == 200

    assert (answer.status_code, answer.json()["code"]) == (413, 413)
    assert after - before < 64 * MIB


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({f"x-{n}": "1" for n in range(MAX_HEADERS)}, f"headers; {MAX_HEADERS} are accepted"),
        ({"x-a": "a" * MAX_HEADER_BYTES}, f"bytes; {MAX_HEADER_BYTES} are accepted"),
        ({"cookie": "a" * MAX_HEADER_BYTES}, f"bytes; {MAX_HEADER_BYTES} are accepted"),
    ],
    ids=["many", "large", "a cookie"],
)
async def test_too_many_or_large_headers_are_431(
    client: httpx2.AsyncClient, headers: dict[str, str], message: str
) -> None:
    answer = await client.get("/healthz", headers=headers)

    assert (answer.status_code, answer.headers["x-should-retry"]) == (431, "false")
    assert answer.json()["message"].endswith(message)
    assert answer.json()["type"] == "urn:agentex:problem:headers-too-large"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/agents/name/" + "a" * MAX_PATH_BYTES, f"path has {MAX_PATH_BYTES + 13} bytes"),
        ("/agents?x=" + "a" * MAX_QUERY_BYTES, f"query has {MAX_QUERY_BYTES + 2} bytes"),
    ],
)
async def test_a_long_path_or_query_is_414(client: httpx2.AsyncClient, path: str, message: str) -> None:
    answer = await client.get(path)

    assert (answer.status_code, answer.headers["x-should-retry"]) == (414, "false")
    assert message in answer.json()["message"]


async def test_what_is_within_the_limits_gets_through(client: httpx2.AsyncClient) -> None:
    headers = {f"x-{n}": "1" for n in range(MAX_HEADERS - 10)} | {"x-a": "a" * (MAX_HEADER_BYTES - 4_000)}
    assert (await client.get("/agents?x=" + "a" * (MAX_QUERY_BYTES - 2), headers=headers)).status_code == 200


def body_routes() -> list[tuple[str, str]]:
    found = [
        (method, (route.path or "").replace(":path}", "}"))
        for route in iter_route_contexts(shared_app().routes)
        for method in sorted((route.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"})
    ]
    return sorted(found)


def filled(path: str) -> str:
    return "/".join(UNKNOWN_ID if part.startswith("{") else part for part in path.split("/"))


@pytest.mark.parametrize(("method", "path"), body_routes())
@pytest.mark.parametrize("deep", ["[", '{"a":'], ids=["lists", "objects"])
async def test_a_deep_body_is_refused_by_every_route(
    client: httpx2.AsyncClient, method: str, path: str, deep: str
) -> None:
    for levels in (101, 400_000 // len(deep)):
        body = deep * levels + "1" + ("]" if deep == "[" else "}") * levels
        answer = await client.request(method, filled(path), content=body, headers=JSON)
        assert 400 <= answer.status_code < 500, answer.text
        assert len(answer.content) < 1_000
        if levels == 101:
            expected = problem(filled(path), 422, "invalid-input", "body: is nested deeper than 100 levels")
            # JSON-RPC's members stand beside a problem's.
            assert {name: answer.json()[name] for name in expected} == expected


def lists() -> list[tuple[str, str, bool]]:
    """Routes that take a limit or a page, with the name of the parameter and whether a query has it."""
    document = shared_app().openapi()
    return sorted(
        (path, parameter["name"], "maximum" in json.dumps(parameter["schema"]))
        for path, operations in document["paths"].items()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if parameter["name"] in {"limit", "page_number", "page_size", "count"}
    )


@pytest.mark.parametrize(("path", "name", "bounded"), lists())
async def test_every_list_has_a_largest_page(
    client: httpx2.AsyncClient, path: str, name: str, bounded: bool
) -> None:
    assert bounded
    for value in ("1000001", "9" * 30, "0", "-1", "1e3", "x"):
        answer = await client.get(f"{filled(path)}?{name}={value}")
        assert answer.status_code == 422, answer.text
        assert f"{name}" in answer.json()["message"]


def test_no_answer_of_the_api_is_a_list_without_a_page() -> None:
    document = shared_app().openapi()
    paged = {path for path, _, _ in lists()}
    without = {
        path
        for path, operations in document["paths"].items()
        if "get" in operations
        and '"type": "array"' in json.dumps(operations["get"]["responses"]["200"].get("content", {}))
        and path not in paged
    }
    assert without == set()
