"""TLS to a real Postgres: the proxy before it shows certificates that are right, wrong, and another's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from sqlalchemy.exc import DBAPIError

from agentex.check import Finding, State, check
from agentex.database import Database, migrate, rows
from agentex.dev.ports import free_port
from agentex.settings import Settings
from tests.support.tls import Authority, PostgresTlsProxy

NAME = "localhost"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "another")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a variable nor a root.crt of whoever runs the tests."""
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


class Case:
    """This test's database behind a proxy."""

    def __init__(self, database_url: str, proxy: PostgresTlsProxy) -> None:
        self.proxy = proxy
        self._url = urlsplit(database_url)

    def settings(self, **words: object) -> Settings:
        """With these words for TLS in the URL, and the host's name, which a certificate is for."""
        assert self._url.password is not None
        user = f"{self._url.username}:{self._url.password}"
        address = f"{NAME}:{self.proxy.address.rpartition(':')[2]}"
        return Settings.model_validate(
            {
                "database_url": f"postgresql://{user}@{address}{self._url.path}?{urlencode(words)}",
                "temporal_address": f"127.0.0.1:{free_port()}",
                "port": free_port(),
                "worker_port": free_port(),
            }
        )


def port_of(database_url: str) -> int:
    port = urlsplit(database_url).port
    assert port is not None
    return port


async def answer(settings: Settings) -> int:
    """One statement over the settings' connection."""
    db = Database(settings)
    try:
        async with db.read() as session:
            return (await rows(session, "SELECT 1 AS one"))[0]["one"]
    finally:
        await db.close()


async def refusal(settings: Settings) -> str:
    """Why there is no connection."""
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        await answer(settings)
    return caught.value.verify_message


async def found(settings: Settings) -> Finding:
    """What `agentex check` says of Postgres."""
    return next(one for one in (await check(settings)).checks if one.name == "postgres")


@pytest.mark.parametrize(
    ("sslmode", "has_authority", "told"),
    [
        ("verify-full", True, "TLSv1.3, certificate and name checked"),
        ("verify-ca", True, "TLSv1.3, certificate checked, not its name"),
        ("require", False, "TLSv1.3, certificate not checked"),
        ("prefer", False, "TLSv1.3, certificate not checked"),
    ],
)
async def test_a_right_certificate_is_taken_and_check_tells_how(
    database_url: str, authority: Authority, sslmode: str, has_authority: bool, told: str
) -> None:
    async with PostgresTlsProxy(port_of(database_url), authority.issue(NAME)) as proxy:
        words = {"sslmode": sslmode} | ({"sslrootcert": authority.certificate} if has_authority else {})
        settings = Case(database_url, proxy).settings(**words)
        assert await answer(settings) == 1
        finding = await found(settings)
    assert finding.state is State.OK
    assert f"({told}) answers, version " in finding.detail


async def test_without_tls_check_says_so(database_url: str, settings: Settings) -> None:
    assert "(no TLS) answers" in (await found(settings)).detail


async def test_verify_full_refuses_a_certificate_for_another_name(
    database_url: str, authority: Authority
) -> None:
    async with PostgresTlsProxy(port_of(database_url), authority.issue("db.example.com")) as proxy:
        case, ours = Case(database_url, proxy), {"sslrootcert": authority.certificate}
        full = case.settings(sslmode="verify-full", **ours)
        assert "certificate is not valid for 'localhost'" in await refusal(full)
        finding = await found(full)
        # Neither the password nor anything else has left.
        assert proxy.received == b""
        assert await answer(case.settings(sslmode="verify-ca", **ours)) == 1
    assert finding.state is State.UNREACHABLE
    assert "its certificate is not to be trusted: Hostname mismatch" in finding.detail


@pytest.mark.parametrize("sslmode", ["verify-full", "verify-ca", "require"])
async def test_a_stranger_s_certificate_is_refused(
    database_url: str, authority: Authority, stranger: Authority, sslmode: str
) -> None:
    async with PostgresTlsProxy(port_of(database_url), stranger.issue(NAME)) as proxy:
        settings = Case(database_url, proxy).settings(sslmode=sslmode, sslrootcert=authority.certificate)
        assert "unable to get local issuer certificate" in await refusal(settings)
        assert proxy.received == b""


async def test_asyncpg_s_own_word_checks_as_well(
    database_url: str, authority: Authority, stranger: Authority
) -> None:
    async with PostgresTlsProxy(port_of(database_url), stranger.issue(NAME)) as proxy:
        settings = Case(database_url, proxy).settings(ssl="verify-full", sslrootcert=authority.certificate)
        assert "issuer certificate" in await refusal(settings)


async def test_migrations_check_the_certificate_too(
    database_url: str, authority: Authority, stranger: Authority
) -> None:
    words: Mapping[str, object] = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
    async with PostgresTlsProxy(port_of(database_url), authority.issue(NAME)) as proxy:
        await asyncio.to_thread(migrate, Case(database_url, proxy).settings(**words))
        assert proxy.received != b""
    async with PostgresTlsProxy(port_of(database_url), stranger.issue(NAME)) as proxy:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(migrate, Case(database_url, proxy).settings(**words))
        assert proxy.received == b""


async def test_a_client_certificate_goes_along(database_url: str, authority: Authority) -> None:
    client, port = authority.issue("client"), port_of(database_url)
    ours = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
    async with PostgresTlsProxy(port, authority.issue(NAME), clients_of=authority) as proxy:
        case = Case(database_url, proxy)
        assert await answer(case.settings(**ours, sslcert=client.certificate, sslkey=client.key)) == 1
        proxy.received.clear()
        # TLS 1.3 refuses a client when that believes to be connected already.
        with pytest.raises((OSError, DBAPIError)):
            await answer(case.settings(**ours))
        assert proxy.received == b""


async def test_require_takes_no_server_without_tls(database_url: str) -> None:
    with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
        await answer(Settings(database_url=f"{database_url}?sslmode=require"))
