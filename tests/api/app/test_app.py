"""Health, metrics, request ids, the OpenAPI document."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import httpx2
import pytest
import yaml

from agentex.app import create_app, openapi_yaml
from agentex.resources import Resources
from agentex.settings import Settings


async def test_healthz_says_that_the_process_is_up(client: httpx2.AsyncClient) -> None:
    response = await client.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("healthy", "status", "body"),
    [
        (True, 200, {"status": "ok", "checks": {"postgres": {"ok": True}, "temporal": {"ok": True}}}),
        (
            False,
            503,
            {
                "status": "unavailable",
                "checks": {
                    "postgres": {"ok": True},
                    "temporal": {"ok": False, "detail": "did not answer the last probe"},
                },
            },
        ),
        (
            None,
            503,
            {
                "status": "unavailable",
                "checks": {
                    "postgres": {"ok": True},
                    "temporal": {"ok": False, "detail": "not asked yet"},
                },
            },
        ),
    ],
)
async def test_readyz_says_what_answers(
    client: httpx2.AsyncClient,
    resources: Resources,
    healthy: bool | None,
    status: int,
    body: dict[str, Any],
) -> None:
    # The first probe has ended, so that it does not write over what this test sets.
    await resources.temporal.probe()
    resources.temporal.healthy = healthy

    response = await client.get("/readyz")

    assert (response.status_code, response.json()) == (status, body)


async def test_metrics_count_requests_by_the_routes_template(client: httpx2.AsyncClient) -> None:
    before = _requests((await client.get("/metrics")).text)
    await client.get("/agents/one")
    await client.get("/agents/two")
    await client.get("/nowhere/three")
    await client.request("MADEUP", "/nowhere/four")
    after = _requests((await client.get("/metrics")).text)

    after.subtract(before)
    assert {line: count for line, count in after.items() if count} == {
        'agentex_requests_total{method="GET",route="/agents/{agent_id}",status="404"}': 2,
        'agentex_requests_total{method="GET",route="none",status="404"}': 1,
        'agentex_requests_total{method="other",route="none",status="404"}': 1,
        'agentex_requests_total{method="GET",route="/metrics",status="200"}': 1,
    }


def _requests(metrics: str) -> Counter[str]:
    lines = [
        line.rpartition(" ") for line in metrics.splitlines() if line.startswith("agentex_requests_total")
    ]
    return Counter({name: int(float(value)) for name, _, value in lines})


@pytest.mark.parametrize("path", ["/healthz", "/agents/none", "/nowhere"])
async def test_a_sane_request_id_is_echoed(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path, headers={"x-request-id": "abc:1.2_3-4"})

    assert response.headers["x-request-id"] == "abc:1.2_3-4"


@pytest.mark.parametrize("given", ["", "with blank", "x" * 129, 'a"b', "<script>"])
async def test_any_other_request_id_is_replaced(client: httpx2.AsyncClient, given: str) -> None:
    response = await client.get("/healthz", headers={"x-request-id": given})

    assert str(UUID(response.headers["x-request-id"])) == response.headers["x-request-id"]


async def test_openapi_json_has_a_version_that_agents_take(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    assert tuple(int(part) for part in document["info"]["version"].split(".")) >= (0, 1, 0)


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def test_operation_ids_are_unique_and_each_operation_has_a_tag_and_a_description() -> None:
    operations = [operation for _, _, operation in _operations(yaml.safe_load(openapi_yaml()))]

    ids = Counter(operation["operationId"] for operation in operations)
    assert [name for name, count in ids.items() if count > 1] == []
    assert [o["operationId"] for o in operations if len(o["tags"]) != 1 or not o["description"]] == []


def test_each_error_is_declared_as_a_problem() -> None:
    document = yaml.safe_load(openapi_yaml())

    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    otherwise = [
        (path, method, status)
        for path, method, operation in _operations(document)
        for status, response in operation["responses"].items()
        if int(status) >= 400 and response["content"] != problem and path != "/readyz"
    ]
    assert otherwise == []
    assert {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"]) == set()


def test_the_document_has_the_schedules_even_where_they_are_off(settings: Settings) -> None:
    off = Settings.model_validate({"ENABLE_AGENT_RUN_SCHEDULES": False})

    in_document = [path for path in yaml.safe_load(openapi_yaml())["paths"] if "/schedules" in path]
    in_app = [path for path in create_app(off).openapi()["paths"] if "/schedules" in path]

    assert (len(in_document) > 0, in_app) == (True, [])


def test_the_document_is_the_same_each_time() -> None:
    assert openapi_yaml() == openapi_yaml()
