"""Free ports."""

from __future__ import annotations

import socket

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
