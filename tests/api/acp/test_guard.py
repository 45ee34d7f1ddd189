"""The guard on connections to agents: what is refused is never dialled, whatever it hides behind."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address, ip_network

import aiohttp
import pytest

from agentex.acp import client as client_module
from agentex.acp.client import AcpClient, OwnCall
from agentex.acp.guard import ALLOWED, Guard, GuardedResolver
from agentex.errors import AgentAddressRefused, AgentProtocolError, AgentUnreachable, OutcomeUnknown
from agentex.settings import Address, Settings
from tests.support.acp_calls import acp_call, message_call
from tests.support.acp_server import AcpServer
from tests.support.listener import Listener, listening
from tests.support.names import Names

NAME = "agent.example"
UNSPECIFIED = str(IPv4Address(0))
IPV6 = socket.has_dualstack_ipv6()
# Loopback, as all of 127.0.0.0/8 is on Linux; allowed here, so that something answers at an allowed address.
GOOD = "127.0.0.2"
GENERAL = f"its address is refused: {ALLOWED}"


@pytest.fixture
async def guarded() -> AsyncIterator[AcpClient]:
    """A client that calls the public internet alone."""
    async with AcpClient(Settings(agent_networks=())) as opened:
        yield opened


@pytest.fixture
async def narrow() -> AsyncIterator[AcpClient]:
    """One that may call 127.0.0.2 besides."""
    async with AcpClient(Settings(agent_networks=(ip_network(GOOD),))) as opened:
        yield opened


@pytest.fixture
async def open_client() -> AsyncIterator[AcpClient]:
    """One without a guard."""
    async with AcpClient(Settings(agent_networks="*")) as opened:
        yield opened


@pytest.fixture
async def everywhere() -> AsyncIterator[Listener]:
    """On all addresses of this machine; it takes a connection, and closes it at once."""
    async with listening("::" if IPV6 else UNSPECIFIED) as listener:
        yield listener


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


async def _call(client: AcpClient, url: str) -> None:
    await client.call(acp_call(url))


async def _stream(client: AcpClient, url: str) -> None:
    async with client.stream(message_call(url)) as updates:
        async for _ in updates:
            pass


async def _health(client: AcpClient, url: str) -> None:
    await client.health(url, 5)


async def _own(client: AcpClient, url: str) -> None:
    (await client.open_own(OwnCall(url, "GET", "x", "", {}, b"", 5))).close()


WAYS = pytest.mark.parametrize("way", [_call, _stream, _health, _own])
Way = Callable[[AcpClient, str], Awaitable[None]]

# Each of them is this machine, for aiohttp and the system's resolver.
LITERALS = [
    "127.0.0.1",
    "127.0.0.3",
    UNSPECIFIED,
    "0x7f.1",
    "0x7f000001",
    "0x7f.0.0.0x1",
    "0x0",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "\uff11\uff12\uff17.0.0.1",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "127\u30020\u30020\u30021",
]
# These are this machine for many programs; aiohttp refuses them by itself, and must not be asked again.
NEVER_DIALLED = [
    "127.1",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "0",
    "[::1%25lo]",
    "[fe80::1%25lo]",
]


@pytest.mark.parametrize("host", LITERALS)
async def test_this_machine_is_reached_by_each_of_these_forms_where_nothing_guards_it(
    open_client: AcpClient, everywhere: Listener, host: str
) -> None:
    if host.startswith("[") and not IPV6:
        pytest.skip("this machine has no IPv6")
    with pytest.raises(OutcomeUnknown):
        await _call(open_client, f"http://{host}:{everywhere.port}")
    assert everywhere.seen == 1


@pytest.mark.parametrize("host", [*LITERALS, *NEVER_DIALLED])
async def test_this_machine_is_not_dialled_in_any_form(
    guarded: AcpClient, everywhere: Listener, host: str
) -> None:
    with pytest.raises(AgentAddressRefused):
        await _call(guarded, f"http://{host}:{everywhere.port}")
    assert everywhere.seen == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        UNSPECIFIED,
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:808:808:0:0:80ff:fffe",
        "fe80::1",
        "fec0::1",
        "fd00:ec2::254",
        "ff02::1",
    ],
)
async def test_a_name_of_such_an_address_is_refused_without_its_address(
    guarded: AcpClient, names: Names, everywhere: Listener, address: str
) -> None:
    names[NAME] = [[address]]
    with pytest.raises(AgentAddressRefused) as caught:
        await _call(guarded, f"http://{NAME}:{everywhere.port}")
    assert str(caught.value) == f"agent {NAME}:{everywhere.port}, event/send: {GENERAL}"
    assert everywhere.seen == 0


@pytest.mark.parametrize("networks", ["*", ""])
@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "xn--"])
async def test_what_is_no_host_name_was_certainly_not_called(host: str, networks: str) -> None:
    async with AcpClient(Settings.model_validate({"agent_networks": networks})) as client:
        with pytest.raises(AgentUnreachable):
            await _call(client, f"http://{host}:8000")


@WAYS
async def test_every_way_to_an_agent_is_guarded(
    guarded: AcpClient, names: Names, server: AcpServer, way: Way
) -> None:
    names[NAME] = [["127.0.0.1"]]
    for url in (server.url, server.url.replace("127.0.0.1", NAME)):
        with pytest.raises(AgentAddressRefused):
            await way(guarded, url)
    assert (len(server.requests), server.probes, len(server.connections)) == (0, 0, 0)


async def test_of_a_name_only_the_allowed_addresses_are_dialled(narrow: AcpClient, names: Names) -> None:
    names[NAME] = [["127.0.0.1", "::1", GOOD, "127.0.0.3"]]
    async with listening("127.0.0.1") as bad, listening(GOOD, bad.port) as good:
        with pytest.raises(OutcomeUnknown):
            await _call(narrow, f"http://{NAME}:{bad.port}")
    assert (bad.seen, good.seen) == (0, 1)


async def test_a_refused_address_does_not_stand_in_for_an_allowed_one_that_is_away(
    narrow: AcpClient, names: Names
) -> None:
    names[NAME] = [[GOOD, "127.0.0.1"]]
    async with listening("127.0.0.1") as bad:
        with pytest.raises(AgentUnreachable) as caught:
            await _call(narrow, f"http://{NAME}:{bad.port}")
        assert bad.seen == 0
    assert type(caught.value) is AgentUnreachable
    assert "no connection: " in str(caught.value)


async def test_a_name_that_changes_its_answer_is_dialled_where_it_was_judged(
    monkeypatch: pytest.MonkeyPatch, names: Names
) -> None:
    # No answer is kept, so that each connection asks anew.
    monkeypatch.setattr(client_module, "DNS_CACHE_SECONDS", 0)
    names[NAME] = [[GOOD], ["127.0.0.1"]]
    settings = Settings(agent_networks=(ip_network(GOOD),))
    async with (
        AcpClient(settings) as narrow,
        listening("127.0.0.1") as bad,
        listening(GOOD, bad.port) as good,
    ):
        url = f"http://{NAME}:{bad.port}"
        with pytest.raises(OutcomeUnknown):
            await _call(narrow, url)
        assert (names.asked, good.seen, bad.seen) == ([NAME], 1, 0)
        with pytest.raises(AgentAddressRefused):
            await _call(narrow, url)
        assert (names.asked, good.seen, bad.seen) == ([NAME, NAME], 1, 0)


async def test_the_last_look_is_at_the_address_that_is_dialled(
    monkeypatch: pytest.MonkeyPatch, guarded: AcpClient, names: Names, everywhere: Listener
) -> None:
    # As if the resolver had let it through: the socket is guarded by itself.
    names[NAME] = [["127.0.0.1"]]
    monkeypatch.setattr(GuardedResolver, "resolve", aiohttp.ThreadedResolver.resolve)
    with pytest.raises(AgentAddressRefused):
        await _call(guarded, f"http://{NAME}:{everywhere.port}")
    assert (names.asked, everywhere.seen) == ([NAME], 0)


@WAYS
async def test_a_redirect_to_this_machine_is_not_followed(everywhere: Listener, way: Way) -> None:
    asked: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        place = f"http://127.0.0.1:{everywhere.port}/"
        answer = f"HTTP/1.1 307 Elsewhere\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n"
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    # Not even where it would be allowed.
    async with server, AcpClient(Settings(agent_networks="*")) as client:
        if way is _health:
            assert (await client.health(url, 5)).status == 307
        else:
            with pytest.raises(AgentProtocolError, match="redirects are not followed"):
                await way(client, url)
    assert (len(asked), everywhere.seen) == (1, 0)


@pytest.mark.parametrize("host", ["host.docker.internal", "agent.example"])
async def test_what_is_judged_is_the_host_that_is_called(server: AcpServer, host: str) -> None:
    url = server.url.replace("127.0.0.1", host)
    rewrites = {host: "127.0.0.1"}
    async with AcpClient(Settings(agent_host_rewrites=rewrites, agent_networks=())) as guarded:
        with pytest.raises(AgentAddressRefused) as caught:
            await _call(guarded, url)
        assert str(caught.value) == f"agent {url.removeprefix('http://')}, event/send: {GENERAL}"
    async with AcpClient(Settings(agent_host_rewrites=rewrites)) as local:
        await _call(local, url)
    assert len(server.requests) == 1


async def test_a_connection_that_is_kept_is_judged_once(
    monkeypatch: pytest.MonkeyPatch, client: AcpClient, names: Names, server: AcpServer
) -> None:
    judged: list[str] = []
    original = Guard.refusal

    def refusal(guard: Guard, address: Address) -> str | None:
        judged.append(str(address))
        return original(guard, address)

    monkeypatch.setattr(Guard, "refusal", refusal)
    names[NAME] = [["127.0.0.1"]]
    for _ in range(20):
        await _call(client, server.url.replace("127.0.0.1", NAME))
    assert (len(server.requests), len(server.connections)) == (20, 1)
    # By the resolver, and at the socket.
    assert (names.asked, judged) == ([NAME], ["127.0.0.1", "127.0.0.1"])


async def test_the_log_tells_the_operator_what_was_refused(
    guarded: AcpClient, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    names[NAME] = [["10.0.0.1", "169.254.169.254"]]
    with caplog.at_level(logging.WARNING, "agentex.acp.guard"), pytest.raises(AgentAddressRefused):
        await _call(guarded, f"http://{NAME}:8000")
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["agent_host"], record.__dict__["refused"]) == (
        "an agent's address is refused",
        NAME,
        ["10.0.0.1 is a private address", "169.254.169.254 is a cloud's metadata address"],
    )
