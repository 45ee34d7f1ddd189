"""The API with an issuer, or an authorizer, that says who calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.oidc_issuer import Issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer that answers."""
    async with Issuer() as opened:
        yield opened
