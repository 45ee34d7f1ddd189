"""What a browser is told: headers of every answer, and whose pages may use the API."""

from __future__ import annotations

import re
from ipaddress import ip_network

import httpx2
import pytest

from tests.api.edge.conftest import Opened
from tests.support.api import registration

ORIGIN = "https://agents.example.com"
CSP = "default-src 'none'; frame-ancestors 'none'"
TRUSTED = {"trusted_proxies": (ip_network("192.0.2.1/32"),)}


def of_edge(answer: httpx2.Response) -> dict[str, str | None]:
    names = ("x-content-type-options", "referrer-policy", "content-security-policy", "cache-control")
    return {name: answer.headers.get(name) for name in names}


@pytest.mark.parametrize(
    ("method", "path", "status", "kept"),
    [
        ("GET", "/healthz", 200, "no-store"),
        ("GET", "/agents", 200, "no-store"),
        ("GET", "/openapi.json", 200, "no-store"),
        ("GET", "/metrics", 200, None),
        ("GET", "/nowhere", 404, "no-store"),
        ("PUT", "/tasks", 405, "no-store"),
        ("POST", "/agents/register", 422, "no-store"),
        ("GET", "/agents?x=" + "a" * 40_000, 414, "no-store"),
    ],
)
async def test_every_answer_is_harmless_in_a_browser(
    client: httpx2.AsyncClient, method: str, path: str, status: int, kept: str | None
) -> None:
    answer = await client.request(method, path)

    assert answer.status_code == status
    assert of_edge(answer) == {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "content-security-policy": CSP,
        "cache-control": kept,
    }
    assert "server" not in answer.headers
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize(
    ("peer", "proto", "has_it"),
    [
        ("192.0.2.1", "https", True),
        ("192.0.2.1", "http", False),
        ("192.0.2.2", "https", False),
        ("127.0.0.1", "https", False),
    ],
)
async def test_hsts_only_where_a_trusted_proxy_was_asked_by_https(
    opened: Opened, peer: str, proto: str, has_it: bool
) -> None:
    async with opened(peer=peer, **TRUSTED) as client:
        answer = await client.get("/healthz", headers={"x-forwarded-proto": proto})
    assert answer.headers.get("strict-transport-security") == ("max-age=31536000" if has_it else None)


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization, content-type",
    }


async def test_no_origin_is_allowed_by_default(client: httpx2.AsyncClient) -> None:
    for answer in (
        await client.options("/agents", headers=preflight(ORIGIN)),
        await client.get("/agents", headers={"origin": ORIGIN}),
    ):
        assert [name for name in answer.headers if name.startswith("access-control-")] == []


async def test_a_named_origin_may(opened: Opened) -> None:
    async with opened(cors_origins=(ORIGIN,)) as client:
        asked = await client.options("/agents", headers=preflight(ORIGIN))
        read = await client.get("/agents", headers={"origin": ORIGIN})
        refused = await client.get("/agents?x=" + "a" * 40_000, headers={"origin": ORIGIN})
        written = await client.post("/agents/register", json=registration(), headers={"origin": ORIGIN})

    assert (asked.status_code, read.status_code, refused.status_code, written.status_code) == (
        200,
        200,
        414,
        200,
    )
    for answer in (asked, read, refused, written):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "origin" in answer.headers["vary"].lower()
    assert asked.headers["access-control-allow-methods"] == "GET, POST, PUT, PATCH, DELETE"
    assert asked.headers["access-control-allow-headers"] == "authorization, content-type"


OTHERS = [
    "https://evil.example",
    "https://agents.example.com.evil.example",
    "https://evilagents.example.com",
    "https://agents.example.com:444",
    "http://agents.example.com",
    "https://agentsXexample.com",
    "https://sub.agents.example.com",
    "https://AGENTS.example.com",
    "https://agents.example.com/",
    "https://agents.example.com, https://evil.example",
    "https://agents.example.com\x00",
    "https://agents.example.com%0d%0ax: y",
    "null",
    "*",
    "",
]


@pytest.mark.parametrize("origin", OTHERS)
async def test_any_other_origin_may_not(opened: Opened, origin: str) -> None:
    async with opened(cors_origins=(ORIGIN,)) as client:
        asked = await client.options("/agents", headers=preflight(origin))
        read = await client.get("/agents", headers={"origin": origin})
        written = await client.post("/agents/register", json=registration(), headers={"origin": origin})

    assert [a.headers.get("access-control-allow-origin") for a in (asked, read, written)] == [None] * 3
    assert (asked.status_code, written.status_code) == (400, 403)
    assert written.json()["code"] == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://agentex.test", 200),
        ("https://agentex.test", 200),
        ("http://agentex.test:81", 403),
        (ORIGIN, 403),
    ],
)
async def test_without_cors_only_its_own_pages_may_change_anything(
    client: httpx2.AsyncClient, origin: str, status: int
) -> None:
    answer = await client.post("/agents/register", json=registration(), headers={"origin": origin})
    assert answer.status_code == status


async def test_the_answers_of_an_origin_are_not_kept_for_another(opened: Opened) -> None:
    async with opened(cors_origins=(ORIGIN, "http://localhost:3000")) as client:
        for origin in (ORIGIN, "http://localhost:3000"):
            answer = await client.get("/agents", headers={"origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            assert re.search("origin", answer.headers["vary"], re.IGNORECASE)
