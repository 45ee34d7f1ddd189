"""Free ports."""

from __future__ import annotations

import socket
from pathlib import Path

from agentex.dev.folder import kept_port
from agentex.dev.ports import free_port, port_is_free


def test_port_with_a_listener_is_not_free_until_it_is_gone() -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert not port_is_free(port)
    assert port_is_free(port)


def test_port_with_a_listener_on_all_addresses_is_not_free() -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.bind(("", port))
        listener.listen()
        assert not port_is_free(port)


def test_free_port_lies_below_the_range_of_outgoing_connections() -> None:
    assert all(20_000 <= free_port() < 32_768 for _ in range(20))


def test_a_part_keeps_its_port_unless_somebody_else_has_it(tmp_path: Path) -> None:
    first = kept_port(tmp_path, "redis")
    assert kept_port(tmp_path, "redis") == first
    with socket.create_server(("127.0.0.1", first)):
        other = kept_port(tmp_path, "redis")
    assert other != first
    assert kept_port(tmp_path, "redis") == other


def test_a_port_that_cannot_be_read_is_chosen_anew(tmp_path: Path) -> None:
    (tmp_path / "redis.port").write_text("many\n")
    assert kept_port(tmp_path, "redis") == int((tmp_path / "redis.port").read_text())
