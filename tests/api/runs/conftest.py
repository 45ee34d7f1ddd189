"""The client that the tests of schedules have."""

from __future__ import annotations

from tests.api.schedules.conftest import client

__all__ = ["client"]
