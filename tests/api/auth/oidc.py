"""Settings, tokens and members, as the tests of oidc need them."""

from __future__ import annotations

import json

import jwt
import pytest
from jwt.utils import base64url_encode

from agentex.auth.principal import Principal, PrincipalType
from agentex.auth.providers.oidc import OidcProvider
from agentex.database import rows
from agentex.errors import Unauthorized
from agentex.resources import Resources
from agentex.settings import Settings
from tests.support.api import Json
from tests.support.oidc_issuer import AUDIENCE, SIGNING, Issuer

ALICE = Principal(principal_type=PrincipalType.USER, user_id="alice")


ROLES = {"oidc_roles_claim": "realm_access.roles", "oidc_roles": "admins=admin,staff=viewer,makers=editor"}


def changed(settings: Settings, issuer: Issuer, **changes: object) -> Settings:
    told: Json = {
        "auth": "oidc",
        "oidc_issuer": issuer.url,
        "oidc_audience": AUDIENCE,
        "oidc_timeout_seconds": 1,
    }
    kept = settings.model_dump(exclude_unset=True, by_alias=False)
    return Settings.model_validate({**kept, "ENABLE_AGENT_RUN_SCHEDULES": True, **told, **changes})


async def principal(provider: OidcProvider, token: str) -> Principal:
    return await provider.authenticate({"authorization": f"Bearer {token}"})


async def refusal(provider: OidcProvider, token: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await principal(provider, token)
    return caught.value.message


async def members(resources: Resources) -> dict[str, str | None]:
    found = await rows(resources.db, "SELECT account_id, name, role FROM members ORDER BY name")
    return {f"{row['account_id']}/{row['name']}": row["role"] for row in found}


def signed(claims: Json, header: Json | None = None) -> str:
    """A token with claims or a header that the library itself would not write, signed all the same."""
    parts = [header or {"alg": "RS256", "kid": "one"}, claims]
    said = b".".join(base64url_encode(json.dumps(part).encode()) for part in parts)
    signature = jwt.get_algorithm_by_name("RS256").sign(said, SIGNING)
    return said.decode() + "." + base64url_encode(signature).decode()
