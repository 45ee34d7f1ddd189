"""The auth providers by name of AGENTEX_AUTH; a new one is a file and a line here."""

from __future__ import annotations

from agentex.auth.authorize import AuthProvider
from agentex.auth.providers.none import NoneProvider
from agentex.settings import Settings

PROVIDERS = {"none": NoneProvider}


def open_provider(settings: Settings) -> AuthProvider:
    """The provider that the settings name."""
    return PROVIDERS[settings.auth]()
