"""TLS in AGENTEX_DATABASE_URL: libpq's words go to the driver, a wrong one is told without the password."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from agentex.cli.main import describe_wrong_settings
from agentex.database_tls import SslMode, mode
from agentex.settings import Settings
from tests.support.tls import Authority

URL = "postgresql://agentex:s3cr%40et@db.example.com:5432/agentex"
DRIVER_URL = URL.replace("postgresql", "postgresql+asyncpg")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)


def wrong(url: str) -> list[str]:
    """The lines that a start with this URL is refused with."""
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=url)
    return describe_wrong_settings(caught.value)


def test_libpq_s_words_leave_the_url_and_go_to_the_driver(authority: Authority) -> None:
    ca = authority.certificate
    settings = Settings(
        database_url=f"{URL}?sslmode=verify-full&sslrootcert={ca}&prepared_statement_cache_size=0"
    )
    assert settings.async_database_url == f"{DRIVER_URL}?prepared_statement_cache_size=0"
    quoted = str(ca).replace("/", "%2F")
    assert settings.database_connect_arguments == {
        "dsn": f"postgresql://?sslmode=verify-full&sslrootcert={quoted}"
    }


@pytest.mark.parametrize("url", [URL, f"{URL}?ssl=require", "postgresql://u:p?ss@h/db"])
def test_a_url_without_them_stays_as_it_is(url: str) -> None:
    settings = Settings(database_url=url)
    assert settings.async_database_url == url.replace("postgresql", "postgresql+asyncpg")
    assert settings.database_connect_arguments == {}


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", SslMode.PREFER),
        ("?sslmode=disable", SslMode.DISABLE),
        ("?sslmode=verify-ca", SslMode.VERIFY_CA),
        ("?sslmode=require&sslrootcert=ca.pem", SslMode.VERIFY_CA),
        ("?ssl=verify-full", SslMode.VERIFY_FULL),
        ("?ssl=require&sslmode=disable", SslMode.REQUIRE),
    ],
)
def test_how_much_tls_is_asked_for(query: str, asked: SslMode) -> None:
    assert mode(URL + query) is asked


def test_postgres_s_own_variable_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert mode(URL) is SslMode.VERIFY_FULL


def test_an_unknown_mode_is_named() -> None:
    assert wrong(f"{URL}?sslmode=verify_all") == [
        f"AGENTEX_DATABASE_URL has sslmode=verify_all; it takes {', '.join(SslMode)}"
    ]


@pytest.mark.parametrize("word", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, word: str) -> None:
    gone = tmp_path / "gone.pem"
    assert wrong(f"{URL}?sslmode=verify-full&{word}={gone}") == [
        f"AGENTEX_DATABASE_URL: {word}={gone} cannot be read (No such file or directory)"
    ]


def test_an_authority_s_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing of the kind")
    assert wrong(f"{URL}?sslmode=verify-full&sslrootcert={empty}") == [
        f"AGENTEX_DATABASE_URL: sslrootcert={empty} holds no certificate (PEM)"
    ]


@pytest.mark.parametrize("query", ["", "&sslmode=prefer", "&sslmode=disable"])
def test_an_authority_that_nobody_asks_is_refused(authority: Authority, query: str) -> None:
    asked = query.removeprefix("&sslmode=") or "prefer"
    said = f"AGENTEX_DATABASE_URL has sslrootcert, which sslmode={asked} does not look at"
    assert wrong(f"{URL}?sslrootcert={authority.certificate}{query}") == [f"{said}; say sslmode=verify-full"]
