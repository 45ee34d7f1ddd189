"""Signatures of webhooks, compared in constant time. Pure."""

from __future__ import annotations

import hmac
from hashlib import sha256

# https://docs.slack.dev/authentication/verifying-requests-from-slack: older ones may be played back.
SLACK_WINDOW_SECONDS = 300


def signed_by_github(secret: str, body: bytes, signature: str) -> bool:
    """X-Hub-Signature-256 over the body.

    https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    """
    return _matches("sha256=", secret, body, signature)


def signed_by_slack(secret: str, timestamp: str, body: bytes, signature: str) -> bool:
    """X-Slack-Signature over the version, X-Slack-Request-Timestamp and the body."""
    return _matches("v0=", secret, b"v0:" + timestamp.encode() + b":" + body, signature)


def is_recent(timestamp: str, now_seconds: float) -> bool:
    """Whether a Slack timestamp lies within five minutes of now, to either side."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    return abs(now_seconds - int(timestamp)) <= SLACK_WINDOW_SECONDS


def _matches(prefix: str, secret: str, message: bytes, signature: str) -> bool:
    expected = prefix + hmac.new(secret.encode(), message, sha256).hexdigest()
    # As bytes: of text, compare_digest takes ASCII only.
    return hmac.compare_digest(expected.encode(), signature.encode())
