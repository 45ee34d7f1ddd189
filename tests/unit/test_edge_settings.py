"""What the edge's settings take, and what they refuse."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from agentex.edge_settings import Rate
from agentex.settings import Settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *[
            ("AGENTEX_CORS_ORIGINS", value)
            for value in (
                "*",
                "https://*.example.com",
                "https://example.com,*",
                "null",
                "https://example.com/",
                "https://example.com/app",
                "https://example.com:443",
                "http://example.com:80",
                "https://Example.com",
                "HTTPS://example.com",
                "example.com",
                "file:///home",
                "https://user@example.com",
                "https://example.com?x",
                "https://.*",
                "https://(a|b).example.com",
                "https://exämple.com",
                "https://example.com:99999",
                "https://a.example b.example",
            )
        ],
        *[("AGENTEX_RATE_LIMIT_PER_ADDRESS", value) for value in ("10", "10:", "0:5", "5:0", "-1:5", "a:b")],
        *[("AGENTEX_RATE_LIMIT_PER_PRINCIPAL", value) for value in ("1e9:5", "10:5:5", "off", "٣:5")],
        *[
            ("AGENTEX_TRUSTED_PROXIES", value)
            for value in ("*", "proxy", "10.0.0.1/8", "10.0.0.0/33", "10.1")
        ],
        *[("AGENTEX_REQUEST_HEAD_TIMEOUT_SECONDS", value) for value in ("0", "-1", "soon")],
        *[("AGENTEX_REQUEST_BODY_TIMEOUT_SECONDS", value) for value in ("0", "-1")],
        ("AGENTEX_MAX_CONNECTIONS", "-1"),
        ("AGENTEX_MAX_CONNECTIONS_PER_ADDRESS", "many"),
    ],
)
def test_a_value_that_means_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [error["loc"] for error in caught.value.errors()] == [(variable.removeprefix("AGENTEX_").lower(),)]


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AGENTEX_CORS_ORIGINS", "https://a.example.com, http://localhost:3000,http://[::1]:3000"
    )
    monkeypatch.setenv("AGENTEX_TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16,fd00::/8")

    settings = Settings()

    assert settings.cors_origins == ("https://a.example.com", "http://localhost:3000", "http://[::1]:3000")
    assert settings.trusted_proxies == tuple(map(ip_network, ("10.0.0.7", "10.1.0.0/16", "fd00::/8")))


def test_nobody_is_trusted_by_default() -> None:
    settings = Settings()
    assert (settings.trusted_proxies, settings.cors_origins) == ((), ())


@pytest.mark.parametrize("variable", ["AGENTEX_CORS_ORIGINS", "AGENTEX_TRUSTED_PROXIES"])
def test_empty_lists_are_empty(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    assert getattr(Settings(), variable.removeprefix("AGENTEX_").lower()) == ()


def test_a_rate_is_requests_a_second_and_a_burst() -> None:
    assert Rate.parse("0.5:20") == Rate(0.5, 20)
