"""How errors leave the API, whatever route they arise in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from agentex.agents import service as agents
from agentex.app import create_app
from agentex.database import rows
from agentex.dev.ports import free_port
from agentex.resources import Resources, open_resources
from agentex.settings import Settings
from tests.support.api import create_task, problem, register, registration, rpc, rpc_error

PROMPT = "the very private prompt"
JSON = {"content-type": "application/json"}


async def test_an_unknown_route_keeps_its_detail(client: httpx2.AsyncClient) -> None:
    response = await client.get("/nowhere/ü")

    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json() == problem("/nowhere/ü", 404, "not-found", "Not Found")


async def test_a_wrong_method_names_the_right_ones(client: httpx2.AsyncClient) -> None:
    response = await client.put("/tasks")

    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert response.json() == problem("/tasks", 405, "method-not-allowed", "Method Not Allowed")


async def test_a_trailing_slash_is_another_route(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/agents/")).status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"name": ', "body is not JSON: Expecting value at character 9"),
        (b"", "body: Field required"),
        (
            b'"\xff"',
            "body: is not JSON in UTF-8, is nested too deep, or holds a number of thousands of digits",
        ),
        (
            b"[" * 2_000,
            "body: is not JSON in UTF-8, is nested too deep, or holds a number of thousands of digits",
        ),
        (
            b"1" * 5_000,
            "body: is not JSON in UTF-8, is nested too deep, or holds a number of thousands of digits",
        ),
        (b"[" * 102 + b"]" * 102, "body: is nested deeper than 100 levels"),
        (
            b'{"name": "a\\u0000b"}',
            "body.name: holds the character NUL (\\u0000), which cannot be stored; leave it out",
        ),
        (
            b'{"a": [{"b\\u0000": 1}]}',
            "body.a.0: holds the character NUL (\\u0000), which cannot be stored; leave it out",
        ),
        (
            b'{"a": "\\ud800"}',
            "body.a: holds half a surrogate pair (\\ud800 to \\udfff); send both halves",
        ),
        (
            b'{"a": NaN}',
            "body.a: is not a finite number; JSON has no NaN and no Infinity (RFC 8259 §6)",
        ),
        (
            b'{"a": [1, -Infinity]}',
            "body.a.1: is not a finite number; JSON has no NaN and no Infinity (RFC 8259 §6)",
        ),
        (
            b'{"a": 1e400}',
            "body.a: is not a finite number; JSON has no NaN and no Infinity (RFC 8259 §6)",
        ),
        (
            '{"a": "x\\u0000"}'.encode("utf-16"),
            "body.a: holds the character NUL (\\u0000), which cannot be stored; leave it out",
        ),
    ],
)
async def test_a_body_that_cannot_be_stored_is_422(
    client: httpx2.AsyncClient, body: bytes, message: str
) -> None:
    response = await client.post("/agents/register", content=body, headers=JSON)

    assert response.status_code == 422
    assert response.json() == problem("/agents/register", 422, "invalid-input", message)


async def test_text_about_odd_characters_is_stored_as_it_is(client: httpx2.AsyncClient) -> None:
    text = "NaN, Infinity, \\u0000, 1e999, \U0001f600 and \\ud800"

    agent = await register(client, description=text)

    assert agent["description"] == text


async def test_a_body_without_its_content_type_is_422(client: httpx2.AsyncClient) -> None:
    response = await client.post("/agents/register", content=b"{}")

    message = "body is not JSON: send it with content-type application/json"
    assert response.json() == problem("/agents/register", 422, "invalid-input", message)


@pytest.mark.parametrize("path", ["/agents/name/%00", "/tasks/name/a%00b", "/tasks?agent_name=%00"])
async def test_nul_in_a_path_or_query_is_422(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path)

    shown = {"/tasks?agent_name=%00": "/tasks"}.get(path, path.replace("%00", "\x00"))
    message = "request: holds a character that cannot be stored, such as NUL; leave it out"
    assert response.status_code == 422
    assert response.json() == problem(shown, 422, "invalid-input", message)


@pytest.mark.parametrize(
    ("created_at", "wrong"),
    [
        (instant, f"{instant} is not an instant between 1970 and the end of 9998")
        for instant in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")
    ]
    + [(1764579600, "1764579600 is a number; an instant is text such as 2026-12-01T09:00:00Z")],
)
async def test_what_is_no_instant_is_422(
    client: httpx2.AsyncClient, created_at: str | int, wrong: str
) -> None:
    task = await create_task(client, await register(client, acp_type="sync"))
    content = {"type": "text", "author": "user", "content": "hi"}
    body = {"task_id": task["id"], "content": content, "created_at": created_at}

    response = await client.post("/messages", json=body)

    assert response.status_code == 422
    assert response.json()["message"] == f"created_at: {wrong}"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/messages", {"task_id": 1, "content": PROMPT}),
        ("/messages", {"content": {"type": "text", "author": "user", "content": [PROMPT]}}),
        ("/messages", {"content": {"type": "data", "author": "user", "data": PROMPT}}),
        ("/messages", [PROMPT]),
        ("/messages", PROMPT),
        ("/agents/register", {"registration_metadata": PROMPT}),
        ("/agents/{agent}/rpc", {"method": 1, "params": PROMPT}),
        ("/agents/{agent}/rpc", {"method": "task/create", "params": {"params": PROMPT}}),
        ("/agents/{agent}/schedules", {"name": "x", "initial_input": {"content": [PROMPT]}}),
        ("/agents/{agent}/schedules", {"name": "x", "task_params": PROMPT}),
    ],
)
async def test_no_422_says_the_input_or_where_our_code_lies(
    client: httpx2.AsyncClient, path: str, body: object
) -> None:
    agent = await register(client)

    response = await client.post(path.format(agent=agent["id"]), json=body)

    assert response.status_code == (200 if "rpc" in path and "task/create" in str(body) else 422)
    for leaked in (PROMPT, "/agentex/", ".py", "Traceback"):
        assert leaked not in response.text


@pytest.mark.parametrize("sent_in", ["one piece", "chunks"])
async def test_a_body_over_the_limit_is_413(
    client: httpx2.AsyncClient, settings: Settings, sent_in: str
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(settings.max_body_bytes // 100_000 + 1):
            yield b" " * 100_000

    content = chunks() if sent_in == "chunks" else b" " * (settings.max_body_bytes + 1)
    response = await client.post("/agents/register", content=content, headers=JSON)

    message = f"the request's body is larger than {settings.max_body_bytes} bytes"
    assert (response.status_code, "x-request-id" in response.headers) == (413, True)
    assert response.json() == problem("/agents/register", 413, "payload-too-large", message)


async def test_a_body_of_just_the_limit_is_read(client: httpx2.AsyncClient, settings: Settings) -> None:
    body = b"{}".ljust(settings.max_body_bytes)

    response = await client.post("/agents/register", content=body, headers=JSON)

    assert response.status_code == 422


async def test_what_nobody_foresaw_is_a_500_without_a_trace_logged_and_counted(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **more: Any) -> None:
        raise ZeroDivisionError(PROMPT)

    monkeypatch.setattr(agents, "list_page", fail)
    before = REGISTRY.get_sample_value("agentex_unexpected_errors_total", {"where": "api"}) or 0

    response = await client.get("/agents")

    assert response.status_code == 500
    assert response.json() == problem("/agents", 500, "internal", "Something went wrong on our side.")
    assert REGISTRY.get_sample_value("agentex_unexpected_errors_total", {"where": "api"}) == before + 1
    logged = [record for record in caplog.records if record.name == "agentex.web.edge"]
    assert [(record.getMessage(), record.exc_info is not None) for record in logged] == [
        ("a request ended in an error nobody foresaw", True)
    ]


async def test_an_error_of_the_database_says_nothing_of_its_parameters(
    client: httpx2.AsyncClient, resources: Resources, caplog: pytest.LogCaptureFixture
) -> None:
    agent = await register(client, acp_type="sync")
    async with resources.db.begin() as session:
        await rows(session, "ALTER TABLE tasks RENAME COLUMN params TO other")
    try:
        request = {"method": "task/create", "params": {"params": {"prompt": PROMPT}}}
        response = await client.post(f"/agents/{agent['id']}/rpc", json=request)
    finally:
        async with resources.db.begin() as session:
            await rows(session, "ALTER TABLE tasks RENAME COLUMN other TO params")

    assert response.status_code == 500
    assert PROMPT not in response.text + caplog.text


async def test_a_commit_that_fails_is_no_200(client: httpx2.AsyncClient, resources: Resources) -> None:
    async with resources.db.begin() as session:
        # Raises only at the commit, after the handler has got its row.
        await rows(
            session,
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$
            """,
        )
        await rows(
            session,
            """
            CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON agents
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
            """,
        )
    try:
        response = await client.post("/agents/register", json=registration())
    finally:
        async with resources.db.begin() as session:
            await rows(session, "DROP FUNCTION refuse CASCADE")

    message = "The database does not answer just now; repeat the request."
    assert response.status_code == 503
    assert response.json() == problem("/agents/register", 503, "database-unavailable", message)
    assert (await client.get("/agents")).json() == []


@pytest.fixture
async def client_without_postgres(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    away = settings.model_copy(update={"database_url": f"postgresql://x@127.0.0.1:{free_port()}/x"})
    # cached_property: the copy would keep the URL of the original.
    away = Settings.model_validate(away.model_dump() | {"ENABLE_AGENT_RUN_SCHEDULES": True})
    async with open_resources(away) as resources:
        transport = httpx2.ASGITransport(app=create_app(away, resources=resources))
        async with httpx2.AsyncClient(transport=transport, base_url="http://agentex.test") as opened:
            yield opened


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/agents", None),
        ("GET", "/tasks", None),
        ("POST", "/agents/register", registration()),
        ("POST", "/agents/name/greeter/rpc", {"method": "task/create"}),
        ("POST", "/tasks/7d9f1a38-8c0f-4b0e-9b7c-000000000000/cancel", None),
    ],
)
async def test_without_postgres_everything_is_503_with_retry_after(
    client_without_postgres: httpx2.AsyncClient, method: str, path: str, body: object
) -> None:
    response = await client_without_postgres.request(method, path, json=body)

    message = "The database does not answer just now; repeat the request."
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert "x-should-retry" not in response.headers
    assert response.json() == problem(path, 503, "database-unavailable", message)


async def test_readyz_without_postgres_names_it(client_without_postgres: httpx2.AsyncClient) -> None:
    response = await client_without_postgres.get("/readyz")

    checks = response.json()["checks"]
    assert (response.status_code, checks["postgres"]) == (
        503,
        {"ok": False, "detail": "ConnectionRefusedError"},
    )


async def test_an_rpc_error_is_no_http_error(client: httpx2.AsyncClient) -> None:
    agent = await register(client)

    answer = await rpc(client, agent, "nothing", {})

    known = "task/create, task/cancel, task/interrupt, event/send, message/send"
    assert answer == rpc_error(-32601, f"Method not found: nothing; known are {known}")
