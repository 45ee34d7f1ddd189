"""The auth providers by name of AGENTEX_AUTH; a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentex.auth.authorize import AuthProvider
from agentex.auth.providers.api_keys import ApiKeysProvider
from agentex.auth.providers.none import NoneProvider
from agentex.auth.providers.oidc import OidcProvider
from agentex.auth.providers.remote import RemoteProvider
from agentex.database import Database
from agentex.settings import Auth, Settings

PROVIDERS: Mapping[Auth, Callable[[Settings, Database], AuthProvider]] = {
    Auth.NONE: NoneProvider,
    Auth.API_KEYS: ApiKeysProvider,
    Auth.OIDC: OidcProvider,
    Auth.REMOTE: RemoteProvider,
}


def open_provider(settings: Settings, db: Database) -> AuthProvider:
    """The provider that the settings name."""
    return PROVIDERS[settings.auth](settings, db)
