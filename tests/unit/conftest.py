"""Unit tests need nothing running, so they get no socket to reach it with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_sockets() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction] - autouse
    """Unix sockets stay open: asyncio wakes its loop through one."""
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
