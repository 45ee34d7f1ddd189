"""Temporal behind TLS: a real server, a proxy that ends TLS before it, certificates made for the test."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from agentex.dev.temporal import EmbeddedTemporal
from agentex.resources import Resources, open_resources
from agentex.schedules.workflow import Tick, TickWorkflow
from agentex.settings import Settings, WorkerQueue
from agentex.temporal import Temporal, connect, explain
from tests.support.tls import Authority, TlsProxy
from tests.temporal.workers import running_workers

SERVER_NAME = "temporal.test"
API_KEY = "tocsin"
# RFC 7541, appendix B: how HTTP/2 writes the characters of `Bearer tocsin`.
_HUFFMAN = {
    " ": "010100",
    "B": "1011101",
    "a": "00011",
    "c": "00100",
    "e": "00101",
    "i": "00110",
    "n": "101010",
    "o": "00111",
    "r": "101100",
    "s": "01000",
    "t": "01001",
}


def on_the_wire(header: str) -> bytes:
    """A header's value as HTTP/2 sends it: its length, marked as Huffman, and its code (RFC 7541 §5.2)."""
    bits = "".join(_HUFFMAN[character] for character in header)
    bits += "1" * (-len(bits) % 8)
    code = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([0x80 | len(code)]) + code


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "another")


@pytest.fixture
async def proxy(temporal_server: EmbeddedTemporal, authority: Authority) -> AsyncIterator[TlsProxy]:
    """Temporal behind TLS."""
    async with TlsProxy(temporal_server.port, authority.issue(SERVER_NAME)) as running:
        yield running


@pytest.fixture
async def mutual(temporal_server: EmbeddedTemporal, authority: Authority) -> AsyncIterator[TlsProxy]:
    """Temporal behind TLS, for clients that our authority has signed."""
    identity = authority.issue(SERVER_NAME)
    async with TlsProxy(temporal_server.port, identity, clients_of=authority) as running:
        yield running


def settings_for(proxy: TlsProxy, authority: Authority, **others: object) -> Settings:
    """TLS by our authority; the name, for the address is a number."""
    return Settings.model_validate(
        {
            "temporal_address": proxy.address,
            "temporal_tls_ca_file": authority.certificate,
            "temporal_tls_server_name": SERVER_NAME,
            "temporal_rpc_timeout_seconds": 10,
        }
        | others
    )


async def refusal(settings: Settings) -> str:
    """Why a client cannot connect."""
    with pytest.raises(RuntimeError) as caught:
        await connect(settings)
    return explain(caught.value)


async def test_tls_with_our_authority_works(proxy: TlsProxy, authority: Authority) -> None:
    temporal = await Temporal.open(settings_for(proxy, authority))
    assert await temporal.probe() is True
    assert b"PRI * HTTP/2.0" in proxy.received


async def test_another_authority_s_certificate_is_refused_and_it_says_so(
    proxy: TlsProxy, stranger: Authority
) -> None:
    why = await refusal(settings_for(proxy, stranger))
    assert why == "its certificate is not signed by an authority that AGENTEX_TEMPORAL_TLS_CA_FILE trusts"
    assert proxy.received == b""


async def test_without_a_ca_file_the_system_s_authorities_count(
    proxy: TlsProxy, authority: Authority
) -> None:
    why = await refusal(settings_for(proxy, authority, temporal_tls_ca_file=None))
    assert "not signed by an authority" in why


async def test_a_certificate_for_another_name_is_refused_and_it_says_so(
    proxy: TlsProxy, authority: Authority
) -> None:
    why = await refusal(settings_for(proxy, authority, temporal_tls_server_name=None))
    assert "for another name; AGENTEX_TEMPORAL_TLS_SERVER_NAME" in why


async def test_tls_to_a_server_without_says_so(
    temporal_server: EmbeddedTemporal, proxy: TlsProxy, authority: Authority
) -> None:
    why = await refusal(settings_for(proxy, authority, temporal_address=temporal_server.address))
    assert "does not speak TLS" in why


async def test_no_tls_to_a_server_with_it_says_so(proxy: TlsProxy) -> None:
    why = await refusal(Settings(temporal_address=proxy.address))
    assert "does it want TLS" in why


async def test_the_log_says_why(
    proxy: TlsProxy, stranger: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    temporal = await Temporal.open(settings_for(proxy, stranger))
    with caplog.at_level(logging.WARNING):
        assert await temporal.probe() is False
    assert "not signed by an authority" in str(vars(caplog.records[-1])["why"])


async def test_mutual_tls_works_with_a_certificate(mutual: TlsProxy, authority: Authority) -> None:
    client = authority.issue("client")
    files = {"temporal_tls_cert_file": client.certificate, "temporal_tls_key_file": client.key}
    temporal = await Temporal.open(settings_for(mutual, authority, **files))
    assert await temporal.probe() is True


async def test_workers_poll_over_mutual_tls(
    mutual: TlsProxy, authority: Authority, database_url: str, resources: Resources
) -> None:
    client = authority.issue("client")
    files = {"temporal_tls_cert_file": client.certificate, "temporal_tls_key_file": client.key}
    prefix = {"temporal_task_queue": resources.settings.temporal_task_queue, "database_url": database_url}
    settings = settings_for(mutual, authority, **files, **prefix)
    async with open_resources(settings) as over_tls, running_workers(over_tls):
        tick = await resources.temporal.client.start_workflow(
            TickWorkflow.run,
            Tick(settings.temporal_task_queue, "minute"),
            id=f"{settings.temporal_task_queue}:tick",
            task_queue=settings.task_queue(WorkerQueue.TICKS),
        )
        assert await tick.result() == 1


async def test_mutual_tls_fails_without_a_certificate(mutual: TlsProxy, authority: Authority) -> None:
    assert "client certificate" in await refusal(settings_for(mutual, authority))
    assert mutual.received == b""


async def test_mutual_tls_fails_with_a_stranger_s_certificate(
    mutual: TlsProxy, authority: Authority, stranger: Authority
) -> None:
    client = stranger.issue("client")
    files = {"temporal_tls_cert_file": client.certificate, "temporal_tls_key_file": client.key}
    assert "client certificate" in await refusal(settings_for(mutual, authority, **files))
    assert mutual.received == b""


async def test_the_api_key_goes_out_as_a_bearer_token(proxy: TlsProxy, authority: Authority) -> None:
    settings = settings_for(proxy, authority, temporal_api_key=SecretStr(API_KEY))
    temporal = await Temporal.open(settings)
    assert await temporal.probe() is True
    assert on_the_wire(f"Bearer {API_KEY}") in proxy.received


async def test_without_an_api_key_there_is_no_bearer_token(proxy: TlsProxy, authority: Authority) -> None:
    temporal = await Temporal.open(settings_for(proxy, authority))
    assert await temporal.probe() is True
    assert on_the_wire(f"Bearer {API_KEY}") not in proxy.received


@asynccontextmanager
async def listening_to_nobody() -> AsyncGenerator[str]:
    """A server that takes connections and leaves them alone; the kernel does, before anybody accepts."""
    held: set[asyncio.StreamWriter] = set()
    server = await asyncio.start_server(lambda _, writer: held.add(writer), "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in held:
        writer.close()


async def test_a_probe_that_hangs_in_connecting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentex.temporal.PROBE_INTERVAL_SECONDS", 0.2)
    async with listening_to_nobody() as address:
        temporal = await Temporal.open(Settings(temporal_address=address))
        assert await temporal.probe() is False


async def test_a_connection_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentex.temporal.CONNECT_SECONDS", 0.2)
    async with listening_to_nobody() as address:
        assert await refusal(Settings(temporal_address=address)) == "no answer within 0.2 s"
