"""What goes through to an agent's own routes, and what comes back."""

from __future__ import annotations

import httpx2
import pytest
from aiohttp import web

from tests.api.forward.conftest import AT
from tests.support.api import Json, problem
from tests.support.own_server import OwnRequest, OwnServer

SENT = {
    "accept": "text/plain",
    "content-type": "text/x-own",
    "user-agent": "probe/1",
    "x-github-event": "push",
    "x-slack-retry-num": "1",
    "x-request-id": "r-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
KEPT_BACK = {
    "authorization": "Bearer secret",
    "cookie": "session=secret",
    "x-forwarded-for": "10.0.0.1",
    "x-api-key": "secret",
    "forwarded": "for=10.0.0.1",
    "te": "trailers",
}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_request_goes_through_with_a_closed_list_of_headers(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str], method: str
) -> None:
    body = b"" if method == "GET" else b"\x00\xff any bytes"
    response = await client.request(
        method, f"{AT}/hooks/a%20b?x=1&y=%2F", content=body, headers=with_key | SENT | KEPT_BACK
    )

    assert (response.status_code, response.json()) == (200, {"ok": True})
    length = {} if method == "GET" else {"content-length": str(len(body))}
    host = {"host": own_server.url.removeprefix("http://").removesuffix("/base")}
    headers = SENT | {"accept-encoding": "identity"} | length | host
    assert own_server.requests == [OwnRequest(method, "/base/hooks/a%20b?x=1&y=%2F", headers, body)]


async def test_an_answer_comes_back_with_its_status_and_a_closed_list_of_headers(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str]
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"etag": '"7"', "set-cookie": "a=b", "x-own": "1", "server": "own/1", "location": "/x"}
        return web.Response(status=418, body=b"<script>", headers=headers, content_type="text/html")

    own_server.answer = answer
    response = await client.get(f"{AT}/tea", headers=with_key | {"x-request-id": "r-1"})

    assert (response.status_code, response.content) == (418, b"<script>")
    assert dict(response.headers) == {
        "content-type": "text/html",
        "etag": '"7"',
        "content-length": "8",
        "content-security-policy": "sandbox",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-request-id": "r-1",
    }


async def test_an_answer_that_was_packed_comes_back_unpacked(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str]
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        packed = web.Response(body=b"a" * 10_000)
        packed.enable_compression(web.ContentCoding.gzip)
        return packed

    own_server.answer = answer
    response = await client.get(f"{AT}/packed", headers=with_key)

    assert (response.content, "content-encoding" in response.headers) == (b"a" * 10_000, False)


@pytest.mark.parametrize("path", ["/", "/a/", "/a;b=c/d@e:f", "/%E2%82%AC", "/a%3Fb"])
async def test_a_path_arrives_as_it_was_sent(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str], path: str
) -> None:
    response = await client.get(f"{AT}{path}", headers=with_key)

    assert response.status_code == 200
    assert [request.target for request in own_server.requests] == [f"/base{path}"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("..", "has a segment of dots"),
        ("a/../../admin", "has a segment of dots"),
        ("a/%2e%2E/admin", "has a segment of dots"),
        ("a/..;x/admin", "has a segment of dots"),
        ("./a", "has a segment of dots"),
        ("a%2Fb", "has an encoded slash, a backslash or a control character"),
        ("a%5cb", "has an encoded slash, a backslash or a control character"),
        ("a\\b", "has an encoded slash, a backslash or a control character"),
        ("a%00b", "has an encoded slash, a backslash or a control character"),
        ("a%0db", "has an encoded slash, a backslash or a control character"),
        ("%252e%252e/admin", "has an encoded slash, a backslash or a control character"),
        ("/evil.example", "has an empty segment"),
        ("//evil.example", "has an empty segment"),
        ("http://evil.example/a", "has an empty segment"),
        ("a//b", "has an empty segment"),
        ("%ff", "is not UTF-8"),
        ("api", "is the agent's JSON-RPC; send that to /agents/name/{name}/rpc"),
        ("api/", "is the agent's JSON-RPC; send that to /agents/name/{name}/rpc"),
        ("%61pi", "is the agent's JSON-RPC; send that to /agents/name/{name}/rpc"),
    ],
)
async def test_a_path_that_could_lead_out_of_the_agents_own_is_refused(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str], path: str, why: str
) -> None:
    # As a client sends it that tidies nothing up.
    url = httpx2.URL(f"http://agentex.test{AT}/x")
    request = client.build_request("GET", url, headers=with_key)
    request.url = _Untidy(url, f"{AT}/{path}")
    response = await client.send(request)

    assert (response.status_code, response.json()["message"]) == (400, f"path {path!r} {why}")
    assert own_server.requests == []


async def test_an_agents_name_that_hides_a_slash_is_refused(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str]
) -> None:
    response = await client.get("/agents/forward/name/greeter%2Fown/a", headers=with_key)

    assert response.status_code == 400
    assert own_server.requests == []


@pytest.mark.parametrize("query", ["a=\xe9", "a=b c"])
async def test_a_query_that_is_not_encoded_is_refused(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str], query: str
) -> None:
    url = httpx2.URL(f"http://agentex.test{AT}/x")
    request = client.build_request("GET", url, headers=with_key)
    request.url = _Untidy(url, f"{AT}/x", query)
    response = await client.send(request)

    message = "the query holds characters that have to be percent-encoded"
    assert (response.status_code, response.json()["message"], own_server.requests) == (400, message, [])


async def test_a_redirect_is_not_followed(
    client: httpx2.AsyncClient, own_server: OwnServer, with_key: dict[str, str]
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://169.254.169.254/")

    own_server.answer = answer
    response = await client.get(f"{AT}/a", headers=with_key)

    place = own_server.url.removeprefix("http://").removesuffix("/base")
    message = f"agent {place}, GET of its own: answered HTTP 302; redirects are not followed"
    assert (response.status_code, response.json()) == (
        502,
        problem(f"{AT}/a", 502, "agent-protocol", message),
    )
    assert len(own_server.requests) == 1


async def test_an_agent_that_is_away_is_a_502(
    client: httpx2.AsyncClient, agent: Json, with_key: dict[str, str]
) -> None:
    known = {"name": "greeter", "description": "", "acp_url": "http://127.0.0.1:1", "acp_type": "sync"}
    assert (await client.post("/agents/register", json=known)).status_code == 200

    response = await client.post(f"{AT}/a", headers=with_key)

    message = response.json()["message"]
    assert message.startswith("agent 127.0.0.1:1, POST of its own: no connection: Connect")
    expected = problem(f"{AT}/a", 502, "agent-unreachable", message)
    assert (response.status_code, response.json()) == (502, expected)


class _Untidy(httpx2.URL):
    """A URL with a path and query that are sent as they stand here."""

    def __init__(self, url: httpx2.URL, path: str, query: str = "") -> None:
        super().__init__(url)
        self._raw = f"{path}?{query}".encode("latin-1") if query else path.encode("latin-1")

    @property
    def raw_path(self) -> bytes:
        return self._raw

    @property
    def path(self) -> str:
        from urllib.parse import unquote

        return unquote(self._raw.partition(b"?")[0].decode("latin-1"))

    @property
    def query(self) -> bytes:
        return self._raw.partition(b"?")[2]
