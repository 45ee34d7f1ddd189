"""TCP ports on this machine."""

from __future__ import annotations

import random
import socket

# Below the range from which Linux (32768) and macOS (49152) take ports for outgoing connections: a port found
# free here is not taken by one of those before its server listens.
_FIRST, _LAST = 20_000, 32_767
_TRIES = 200


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on this port now (connections in TIME_WAIT do not count)."""
    return why_taken(port, host) is None


def why_taken(port: int, host: str) -> OSError | None:
    """What a server that listened there now would be told: in use, not an address of ours, not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error
        return None


def accepts(port: int, host: str) -> bool:
    """Whether something listens there and takes a connection within a second."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nothing listens, 20000 to 32767.

    Raises OSError when none was found.
    """
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)  # noqa: S311 (which port is no secret)
        if port_is_free(port, host):
            return port
    raise OSError(f"no free TCP port between {_FIRST} and {_LAST} on {host} after {_TRIES} tries")
