"""Signatures, by the examples of those who make them."""

from __future__ import annotations

import pytest

from agentex.forward.signatures import is_recent, signed_by_github, signed_by_slack

# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
GITHUB = (
    "It's a Secret to Everybody",
    b"Hello, World!",
    "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
)
# https://docs.slack.dev/authentication/verifying-requests-from-slack
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # noqa: S105 - the example's
SLACK_TIME = "1531420618"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"


def test_githubs_own_example() -> None:
    secret, body, signature = GITHUB
    assert signed_by_github(secret, body, signature)


def test_slacks_own_example() -> None:
    assert signed_by_slack(SLACK_SECRET, SLACK_TIME, SLACK_BODY, SLACK)


@pytest.mark.parametrize(
    "signature", ["", "sha256=", GITHUB[2][:-1], GITHUB[2].upper(), GITHUB[2][7:], "\xe9"]
)
def test_nothing_else_is_githubs_signature(signature: str) -> None:
    assert not signed_by_github(GITHUB[0], GITHUB[1], signature)


@pytest.mark.parametrize("timestamp", ["1531420619", "", "\xe9"])
def test_slacks_signature_covers_the_time(timestamp: str) -> None:
    assert not signed_by_slack(SLACK_SECRET, timestamp, SLACK_BODY, SLACK)


@pytest.mark.parametrize(
    ("timestamp", "recent"),
    [
        ("1000", True),
        ("700", True),
        ("1300", True),
        ("699", False),
        ("1301", False),
        ("²", False),
        ("", False),
    ],
)
def test_recent_is_within_300_seconds(timestamp: str, recent: bool) -> None:
    assert is_recent(timestamp, 1000.0) is recent
