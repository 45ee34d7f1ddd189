"""What opens the way to an agent's own routes, and what does not."""

from __future__ import annotations

from urllib.parse import urlencode

import httpx2
import pytest
from pydantic import SecretStr

from agentex.auth.authorize import Operation, ResourceType
from agentex.resources import Resources
from tests.api.forward.conftest import APP_ID, AT, REPOSITORY, SECRET, Signed, add_key, by_github, by_slack
from tests.support.api import Json, problem, register
from tests.support.authz import ScriptedAuthz
from tests.support.own_server import OwnServer

PUSH: Json = {"repository": {"full_name": REPOSITORY}, "ref": "main"}
EVENT: Json = {"api_app_id": APP_ID, "type": "event_callback"}
CHECK: Json = {"type": "url_verification", "token": "t", "challenge": "c-1"}
ELSEWHERE = {"x-test-account": "elsewhere"}
PATH = f"{AT}/hooks"
FORM = "application/x-www-form-urlencoded"


async def post(client: httpx2.AsyncClient, signed: Signed, **headers: str) -> httpx2.Response:
    given = signed.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(PATH, content=signed.body, headers=given)


@pytest.fixture
async def github(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await add_key(client, name=REPOSITORY, api_key_type="github", api_key=SECRET)


@pytest.fixture
async def slack(client: httpx2.AsyncClient, agent: Json) -> Json:
    return await add_key(client, name=APP_ID, api_key_type="slack", api_key=SECRET)


def unauthorized(response: httpx2.Response, message: str) -> bool:
    assert (response.status_code, response.json()) == (401, problem(PATH, 401, "unauthorized", message))
    return response.headers["x-should-retry"] == "false"


async def test_without_a_credential_nothing_is_opened(
    client: httpx2.AsyncClient, agent: Json, own_server: OwnServer
) -> None:
    message = (
        "give an external key of the agent in x-agent-api-key, or sign the request as GitHub "
        "(x-hub-signature-256) or Slack (x-slack-signature) does"
    )
    assert unauthorized(await client.post(PATH), message)
    assert own_server.requests == []


@pytest.mark.parametrize("which", ["wrong", "empty", "internal", "another agent's", "deleted"])
async def test_only_an_external_key_of_the_agent_opens_it(
    client: httpx2.AsyncClient, agent: Json, own_server: OwnServer, which: str
) -> None:
    key = {"wrong": "agx_wrong", "empty": ""}.get(which)
    if which == "internal":
        key = (await add_key(client, api_key_type="internal"))["api_key"]
    if which == "another agent's":
        await register(client, name="other", acp_url=own_server.url)
        key = (await add_key(client, agent_name="other"))["api_key"]
    if which == "deleted":
        made = await add_key(client)
        key = made["api_key"]
        assert (await client.delete(f"/agent_api_keys/{made['id']}")).status_code == 200

    response = await client.post(PATH, headers={"x-agent-api-key": str(key)})

    assert unauthorized(response, "x-agent-api-key is not an external key of agent 'greeter'")
    assert own_server.requests == []


async def test_a_key_of_a_deleted_agent_does_not_open_its_successor(
    client: httpx2.AsyncClient, agent: Json, own_server: OwnServer, with_key: dict[str, str]
) -> None:
    assert (await client.delete(f"/agents/{agent['id']}")).status_code == 200
    gone = await client.post(PATH, headers=with_key)
    await register(client, acp_url=own_server.url)

    again = await client.post(PATH, headers=with_key)

    assert (gone.status_code, again.status_code, own_server.requests) == (401, 401, [])


@pytest.mark.parametrize("form", [False, True])
async def test_github_opens_with_its_signature(
    client: httpx2.AsyncClient, github: Json, own_server: OwnServer, form: bool
) -> None:
    payload = '{"repository": {"full_name": "acme/widgets"}}'
    signed = by_github(urlencode({"payload": payload}).encode() if form else PUSH)

    response = await post(client, signed, **({"content_type": FORM} if form else {}))

    assert response.status_code == 200
    assert [request.body for request in own_server.requests] == [signed.body]


@pytest.mark.parametrize(
    "signed",
    [
        by_github(PUSH, secret="another secret"),
        Signed(b'{"repository": {"full_name": "acme/widgets"}}', by_github(PUSH).headers),
        Signed(by_github(PUSH).body, {"x-hub-signature-256": "sha256="}),
        Signed(by_github(PUSH).body, {"x-hub-signature-256": ""}),
        Signed(
            by_github(PUSH).body, {"x-hub-signature-256": by_github(PUSH).headers["x-hub-signature-256"][7:]}
        ),
        by_github({"repository": {"full_name": "acme/other"}}),
    ],
    ids=["another secret", "another body", "no digest", "empty", "no prefix", "another repository"],
)
async def test_github_opens_nothing_with_another_signature(
    client: httpx2.AsyncClient, github: Json, own_server: OwnServer, signed: Signed
) -> None:
    response = await post(client, signed)

    message = (
        "x-hub-signature-256 is not a signature with a secret that is kept here for this agent and source"
    )
    assert unauthorized(response, message)
    assert own_server.requests == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the payload is neither JSON nor a form that holds some"),
        (b"{", "the payload is neither JSON nor a form that holds some"),
        (b"\xff", "the payload is neither JSON nor a form that holds some"),
        (b"[]", "the payload is not a JSON object"),
        (b"{}", "the payload has no repository.full_name, by which its secret is found"),
        (b'{"repository": []}', "the payload has no repository.full_name, by which its secret is found"),
        (
            b'{"repository": {"full_name": 7}}',
            "the payload has no repository.full_name, by which its secret is found",
        ),
    ],
)
async def test_a_payload_that_names_no_repository_is_refused(
    client: httpx2.AsyncClient, github: Json, body: bytes, message: str
) -> None:
    response = await post(client, by_github(body))

    assert (response.status_code, response.json()) == (400, problem(PATH, 400, "bad-request", message))


@pytest.mark.parametrize("form", [False, True])
async def test_slack_opens_with_its_signature(
    client: httpx2.AsyncClient, slack: Json, own_server: OwnServer, form: bool
) -> None:
    signed = by_slack(urlencode({"api_app_id": APP_ID, "command": "/x"}).encode() if form else EVENT)

    response = await post(client, signed, **({"content_type": FORM} if form else {}))

    assert response.status_code == 200
    assert [request.body for request in own_server.requests] == [signed.body]


@pytest.mark.parametrize("age_seconds", [-290, 290])
async def test_slack_opens_within_five_minutes(
    client: httpx2.AsyncClient, slack: Json, age_seconds: float
) -> None:
    assert (await post(client, by_slack(EVENT, age_seconds=age_seconds))).status_code == 200


@pytest.mark.parametrize("payload", [EVENT, CHECK], ids=["event", "check"])
@pytest.mark.parametrize("age_seconds", [-310, 310, 10**9])
async def test_slack_opens_nothing_outside_of_five_minutes(
    client: httpx2.AsyncClient, slack: Json, own_server: OwnServer, payload: Json, age_seconds: float
) -> None:
    response = await post(client, by_slack(payload, age_seconds=age_seconds))

    assert unauthorized(response, "x-slack-request-timestamp is not a Unix time within 300 s of now")
    assert own_server.requests == []


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", "9" * 400])
async def test_slack_opens_nothing_without_a_time(
    client: httpx2.AsyncClient, slack: Json, timestamp: str
) -> None:
    response = await post(client, by_slack(EVENT), x_slack_request_timestamp=timestamp)

    assert unauthorized(response, "x-slack-request-timestamp is not a Unix time within 300 s of now")


@pytest.mark.parametrize(
    "signed",
    [
        by_slack(EVENT, secret="another secret"),
        by_slack(CHECK, secret="another secret"),
        by_slack({"api_app_id": "A9"}),
    ],
    ids=["event", "check", "another app"],
)
async def test_slack_opens_nothing_with_another_signature(
    client: httpx2.AsyncClient, slack: Json, own_server: OwnServer, signed: Signed
) -> None:
    message = "x-slack-signature is not a signature with a secret that is kept here for this agent and source"
    assert unauthorized(await post(client, signed), message)
    assert own_server.requests == []


async def test_slacks_check_of_the_url_is_answered_here(
    client: httpx2.AsyncClient, slack: Json, own_server: OwnServer
) -> None:
    response = await post(client, by_slack(CHECK))

    assert (response.status_code, response.text, own_server.requests) == (200, "c-1", [])
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "body", [b"{}", b'{"api_app_id": 7}', b'{"type": "url_verification", "challenge": 7}']
)
async def test_a_slack_payload_that_names_no_app_is_refused(
    client: httpx2.AsyncClient, slack: Json, body: bytes
) -> None:
    response = await post(client, by_slack(body))

    message = "the payload has no api_app_id, by which its secret is found"
    assert (response.status_code, response.json()) == (400, problem(PATH, 400, "bad-request", message))


async def test_the_secret_says_which_account_is_meant(
    client: httpx2.AsyncClient, github: Json, own_server: OwnServer
) -> None:
    async with OwnServer() as theirs:
        known = {"name": "greeter", "description": "", "acp_url": theirs.url, "acp_type": "async"}
        assert (await client.post("/agents/register", json=known, headers=ELSEWHERE)).status_code == 200
        await add_key(client, ELSEWHERE, name=REPOSITORY, api_key_type="github", api_key="their secret")
        key = await add_key(client, ELSEWHERE)

        statuses = [
            (await post(client, by_github(PUSH, secret="their secret"))).status_code,
            (await client.get(PATH, headers={"x-agent-api-key": key["api_key"]})).status_code,
            (await post(client, by_github(PUSH))).status_code,
        ]
        assert (statuses, len(theirs.requests), len(own_server.requests)) == ([200] * 3, 2, 1)


async def test_who_made_the_key_must_still_be_allowed_to_execute_the_agent(
    client: httpx2.AsyncClient, authz: ScriptedAuthz, own_server: OwnServer, with_key: dict[str, str]
) -> None:
    authz.asked.clear()
    allowed = await client.get(PATH, headers=with_key)
    asked = list(authz.asked)
    authz.deny = {(Operation.EXECUTE, ResourceType.AGENT)}
    denied = await client.get(PATH, headers=with_key)

    assert (allowed.status_code, denied.status_code, len(own_server.requests)) == (200, 403, 1)
    assert asked == [(Operation.EXECUTE, ResourceType.AGENT)]


@pytest.mark.parametrize("key", [None, "A" * 43 + "="], ids=["none", "another"])
async def test_a_secret_that_cannot_be_read_any_more_is_a_503(
    client: httpx2.AsyncClient, github: Json, resources: Resources, key: str | None
) -> None:
    changed = {"secret_key": None if key is None else SecretStr(key)}
    resources.settings = resources.settings.model_copy(update=changed)

    response = await post(client, by_github(PUSH))

    message = (
        "A kept secret cannot be read with the AGENTEX_SECRET_KEY of this process; its operator has to act."
    )
    assert (response.status_code, response.json()) == (503, problem(PATH, 503, "secret-unreadable", message))
