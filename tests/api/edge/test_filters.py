"""Long hostile text in every filter, name and cursor: answered, and at once.

A time limit far above what is needed stands for "at once": what backtracks takes years.
"""

from __future__ import annotations

from urllib.parse import quote

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from tests.api.conftest import shared_app
from tests.support.api import TEXT, UNKNOWN_ID, Json

LENGTH = 30_000
HOSTILE = [
    "a" * LENGTH + "!",
    "1:1:" * (LENGTH // 4),
    "0-" * (LENGTH // 2),
    "%" * (LENGTH // 3),
    "{" * (LENGTH // 3),
]
CRONS = [
    "0 " * LENGTH,
    "*/1" * LENGTH + " * * * *",
    ",".join(["1-59/1"] * LENGTH) + " * * * *",
    "1" * LENGTH + " * * * *",
    "* * * * " + "MON-" * LENGTH,
    "* * * * " + ",".join(["MON-SUN"] * LENGTH),
    "-" * LENGTH,
    " " * LENGTH,
    "@" * LENGTH,
]


def parameters() -> list[tuple[str, str]]:
    """Every text that a query of a GET takes."""
    document = shared_app().openapi()
    return sorted(
        (path, parameter["name"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method == "get" and not path.endswith("/stream")
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    )


def filled(path: str, value: str = UNKNOWN_ID) -> str:
    return "/".join(value if part.startswith("{") else part for part in path.split("/"))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("path", "name"), parameters())
async def test_a_filter_answers_hostile_text(client: httpx2.AsyncClient, path: str, name: str) -> None:
    others = {"task_id": UNKNOWN_ID, "agent_id": UNKNOWN_ID}
    for text in HOSTILE:
        query = {**others, name: text}
        if len(str(httpx2.QueryParams(query))) > 32_768:
            query[name] = text[: LENGTH // 4]
        answer = await client.get(filled(path), params=query)
        assert answer.status_code < 500, answer.text
        assert len(answer.content) < 20_000


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "path",
    sorted(
        (route.path or "").replace(":path}", "}")
        for route in iter_route_contexts(shared_app().routes)
        if "GET" in (route.methods or set())
        and "{" in (route.path or "")
        and "query" not in (route.path or "")
    ),
)
async def test_a_name_in_a_path_answers_hostile_text(client: httpx2.AsyncClient, path: str) -> None:
    for text in HOSTILE:
        answer = await client.get(filled(path, quote(text[:3_000])))
        assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.timeout(30)
@pytest.mark.parametrize("cron", CRONS, ids=range(len(CRONS)))
async def test_a_cron_expression_answers_hostile_text(
    client: httpx2.AsyncClient, agent: Json, cron: str
) -> None:
    body = {"name": "s", "cron_expression": cron, "initial_input": {"content": TEXT["content"]}}
    answer = await client.post(f"/agents/{agent['id']}/schedules", json=body)
    assert (answer.status_code, len(answer.content) < 2_000) == (422, True), answer.text


@pytest.mark.timeout(30)
@pytest.mark.parametrize("field", ["name", "timezone", "description", "overlap_policy"])
async def test_a_schedules_words_answer_hostile_text(
    client: httpx2.AsyncClient, agent: Json, field: str
) -> None:
    for text in HOSTILE:
        body = {"name": "s", "cron_expression": "0 9 * * *", "initial_input": {"content": "hi"}, field: text}
        answer = await client.post(f"/agents/{agent['id']}/schedules", json=body)
        assert answer.status_code in {200, 400, 422}, answer.text


@pytest.mark.timeout(30)
async def test_headers_answer_hostile_text(client: httpx2.AsyncClient) -> None:
    for name in (
        "x-request-id",
        "traceparent",
        "last-event-id",
        "idempotency-key",
        "if-match",
        "x-forwarded-for",
    ):
        for text in HOSTILE:
            answer = await client.get(f"/tasks/{UNKNOWN_ID}", headers={name: text[: LENGTH // 2]})
            assert answer.status_code == 404
