"""The settings of oidc and remote: what is refused at the start, in words that say what would be right."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agentex.settings import Settings

KEY = "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3JlLi4="
ISSUER = "https://login.example.com/realms/a"
OIDC = {"auth": "oidc", "secret_key": KEY, "oidc_issuer": ISSUER, "oidc_audience": "agentex"}
REMOTE = {"auth": "remote", "secret_key": KEY, "remote_auth_url": "https://auth.example.com"}


def of(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings as a process reads them."""
    for name, value in variables.items():
        monkeypatch.setenv(f"AGENTEX_{name.upper()}", value)
    return Settings()


def test_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "oidc_algorithms": " RS256, EdDSA ",
        "oidc_roles_claim": "groups",
        "oidc_roles": "cn=admins=admin, staff = viewer,",
        "oidc_default_role": "",
        "oidc_account_claim": " ",
        "remote_auth_headers": "Authorization, X-Who",
    }
    read = of({**OIDC, **told}, monkeypatch)
    assert (read.oidc_algorithms, read.oidc_roles, read.oidc_default_role, read.oidc_account_claim) == (
        {"RS256", "EdDSA"},
        {"cn=admins": "admin", "staff": "viewer"},
        None,
        None,
    )
    assert read.remote_auth_headers == {"authorization", "x-who"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({**OIDC, "oidc_issuer": ""}, "which needs AGENTEX_OIDC_ISSUER"),
        ({**OIDC, "oidc_audience": ""}, "which needs AGENTEX_OIDC_AUDIENCE"),
        ({**OIDC, "secret_key": ""}, "which needs AGENTEX_SECRET_KEY"),
        ({**OIDC, "oidc_issuer": "http://login.example.com"}, "it has to be https"),
        ({**OIDC, "oidc_issuer": "https://login.example.com?x=1"}, "is not an https URL"),
        ({**OIDC, "oidc_issuer": "https://me:pw@login.example.com"}, "is not an https URL"),
        ({**OIDC, "oidc_algorithms": "RS256,HS256"}, "takes some of ES256"),
        ({**OIDC, "oidc_algorithms": "none"}, "takes some of ES256"),
        ({**OIDC, "oidc_algorithms": ","}, "takes some of ES256"),
        ({**OIDC, "oidc_roles_claim": "g", "oidc_roles": "staff"}, "is not GROUP=ROLE"),
        ({**OIDC, "oidc_roles_claim": "g", "oidc_roles": "staff=root"}, "is not GROUP=ROLE"),
        ({**OIDC, "oidc_roles_claim": "g", "oidc_roles": "bots=agent"}, "is not GROUP=ROLE"),
        ({**OIDC, "oidc_roles": "staff=viewer"}, "AGENTEX_OIDC_ROLES_CLAIM does not say of what"),
        ({**OIDC, "oidc_default_role": "agent"}, "oidc_default_role"),
        ({**OIDC, "oidc_leeway_seconds": "301"}, "oidc_leeway_seconds"),
        ({**REMOTE, "remote_auth_url": ""}, "which needs AGENTEX_REMOTE_AUTH_URL"),
        ({**REMOTE, "remote_auth_url": "http://auth.internal"}, "AGENTEX_REMOTE_AUTH_ALLOW_HTTP=true"),
        ({**REMOTE, "remote_auth_url": "auth.internal"}, "is not an https URL"),
        ({**REMOTE, "remote_auth_headers": "authorization,host"}, "'host': takes names of headers"),
        ({**REMOTE, "remote_auth_headers": "transfer-encoding"}, "'transfer-encoding': takes names"),
        ({**REMOTE, "remote_auth_headers": "a b"}, "'a b': takes names of headers"),
        ({**REMOTE, "remote_auth_cache_seconds": "3601"}, "remote_auth_cache_seconds"),
    ],
)
def test_what_is_refused(variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError) as caught:
        of(variables, monkeypatch)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "variables",
    [
        OIDC,
        {**OIDC, "oidc_issuer": "http://127.0.0.1:8080/realms/a"},
        {**OIDC, "oidc_issuer": "http://localhost:8080"},
        REMOTE,
        {**REMOTE, "remote_auth_url": "http://[::1]:9000/auth"},
        {**REMOTE, "remote_auth_url": "http://auth.internal", "remote_auth_allow_http": "true"},
    ],
)
def test_what_is_taken(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(variables, monkeypatch).auth.value == variables["auth"]
