"""The settings of the auth providers that ask somebody else: an OIDC issuer, or a remote authorizer."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, cast

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from agentex.addresses import is_base_url, is_private_way

# The roles that people and services have, best first; an agent's is the agent's alone.
RoleName = Literal["admin", "operator", "editor", "viewer"]
ROLE_NAMES: tuple[RoleName, ...] = ("admin", "operator", "editor", "viewer")
# Who checks these with a public key cannot make them; HS256 and its like are no choice.
ASYMMETRIC_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_HEADER = re.compile(r"[a-z0-9-]+")
# Of one connection (RFC 9110, 7.6.1), or of the message that it was: never passed on.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


class AuthSettings(BaseSettings):
    """The part of Settings that AGENTEX_AUTH=oidc and AGENTEX_AUTH=remote read."""

    # Compared with `iss` to the letter; its keys are found by {issuer}/.well-known/openid-configuration.
    oidc_issuer: str | None = None
    # What tokens for this API are made out to (`aud`); not the id of a client that logs people in.
    oidc_audience: str | None = None
    oidc_algorithms: Annotated[frozenset[str], NoDecode] = frozenset({"RS256", "ES256", "PS256", "EdDSA"})
    # What people are called here: has to be the issuer's own choice and never be given to somebody else.
    oidc_user_claim: str = "sub"
    # Whose token it is when it is a service's: a claim that then names it (client_id), or CLAIM=VALUE, and
    # it is called as a person would be (gty=client-credentials).
    oidc_service_account_claim: str | None = None
    # Which account the caller is of; without it all are of `default`.
    oidc_account_claim: str | None = None
    # A claim's name, or the way to it: realm_access.roles.
    oidc_roles_claim: str | None = None
    # What the values of that claim make of one here, e.g. "platform-admins=admin,staff=viewer".
    oidc_roles: Annotated[dict[str, RoleName], NoDecode] = Field(default_factory=dict[str, RoleName])
    # Of whom none of these is: none, and so only what they were granted.
    oidc_default_role: RoleName | None = None
    # Clocks of machines on one network differ by less.
    oidc_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    # A key that the issuer has taken back is believed this long at most while the issuer answers.
    oidc_keys_seconds: PositiveFloat = 600
    # Between two looks for a key nobody knows: anybody can make up the id of one.
    oidc_refetch_seconds: PositiveFloat = 10
    # A request waits this long at most, and only one that no cached key can answer.
    oidc_timeout_seconds: PositiveFloat = 3

    # {URL}/v1/authn and {URL}/v1/authz/… are asked.
    remote_auth_url: str | None = None
    # It is told callers' credentials: over http only where this says that nobody listens on the way.
    remote_auth_allow_http: bool = False
    # Each question; a request asks one to four.
    remote_auth_timeout_seconds: PositiveFloat = 3
    # How long somebody who has lost their login is still let in; 0 asks each time.
    remote_auth_cache_seconds: Annotated[float, Field(ge=0, le=3_600)] = 60
    # Callers that are remembered, some 1 kB each.
    remote_auth_cache_entries: PositiveInt = 10_000
    # Of a request's headers those that tell who calls; no others are passed on.
    remote_auth_headers: Annotated[frozenset[str], NoDecode] = frozenset(
        {
            "authorization",
            "cookie",
            "x-api-key",
            "x-agent-api-key",
            "x-account-id",
            "x-selected-account-id",
            "x-user-id",
        }
    )

    @field_validator(
        "oidc_issuer",
        "oidc_audience",
        "oidc_service_account_claim",
        "oidc_account_claim",
        "oidc_roles_claim",
        "oidc_default_role",
        "remote_auth_url",
        mode="before",
    )
    @classmethod
    def _empty_says_nothing(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("oidc_issuer", "remote_auth_url")
    @classmethod
    def _takes_paths(cls, value: str | None) -> str | None:
        if value is not None and not is_base_url(value):
            raise ValueError("is not an https URL without query, such as https://login.example.com/realms/a")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _is_read_by_nobody(cls, value: str | None) -> str | None:
        if value is not None and not is_private_way(value):
            raise ValueError("is http, so that anybody on the way could put keys in; it has to be https")
        return value

    @field_validator("oidc_algorithms", mode="before")
    @classmethod
    def _split_algorithms(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_asymmetric(cls, value: frozenset[str]) -> frozenset[str]:
        if not value or not value <= ASYMMETRIC_ALGORITHMS:
            raise ValueError(f"takes some of {', '.join(sorted(ASYMMETRIC_ALGORITHMS))}, comma-separated")
        return value

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _split_roles(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # At the last =, for a group may be a path of an LDAP directory.
        pairs = [part.rpartition("=") for part in _parts(value)]
        if not all(group.strip() and role.strip() in ROLE_NAMES for group, _, role in pairs):
            raise ValueError(
                f"{value[:200]!r} is not GROUP=ROLE, comma-separated, such as platform-admins=admin,"
                f"staff=viewer; the roles are {', '.join(ROLE_NAMES)}"
            )
        return {group.strip(): role.strip() for group, _, role in pairs}

    @field_validator("remote_auth_headers", mode="before")
    @classmethod
    def _split_headers(cls, value: object) -> object:
        names = _parts(value) if isinstance(value, str) else value
        return frozenset(name.lower() for name in cast("list[str]", names))

    @field_validator("remote_auth_headers")
    @classmethod
    def _may_be_passed_on(cls, value: frozenset[str]) -> frozenset[str]:
        wrong = sorted(name for name in value if name in HOP_BY_HOP or not _HEADER.fullmatch(name))
        if wrong or not value:
            raise ValueError(f"{', '.join(wrong)!r}: takes names of headers that tell who calls")
        return value

    @model_validator(mode="after")
    def _credentials_go_a_private_way(self) -> Self:
        url = self.remote_auth_url
        if url is not None and not self.remote_auth_allow_http and not is_private_way(url):
            raise ValueError(
                "AGENTEX_REMOTE_AUTH_URL is http, so that anybody on the way could read credentials: make it "
                "https, or set AGENTEX_REMOTE_AUTH_ALLOW_HTTP=true where nobody is on the way"
            )
        return self

    @model_validator(mode="after")
    def _roles_have_a_claim(self) -> Self:
        if self.oidc_roles and self.oidc_roles_claim is None:
            raise ValueError("AGENTEX_OIDC_ROLES is set, and AGENTEX_OIDC_ROLES_CLAIM does not say of what")
        return self
