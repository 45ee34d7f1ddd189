"""Keys and secrets as they are kept."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from pydantic import SecretStr, ValidationError

from agentex.agent_api_keys.credentials import credential
from agentex.agent_api_keys.models import ApiKeyType
from agentex.errors import BadRequest, SecretUnreadable
from agentex.sealing import seal, unseal
from agentex.settings import Settings

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (251, 252))


def with_key(key: str | None) -> Settings:
    return Settings(secret_key=SecretStr(key) if key else None)


def test_a_key_is_random_and_kept_as_its_hash() -> None:
    one, other = (credential(with_key(None), ApiKeyType.EXTERNAL, None, "api_key") for _ in range(2))

    assert one.text != other.text
    assert one.text.startswith("agx_")
    assert len(one.text) == 47
    assert (one.key_prefix, one.key_hash, one.sealed_secret) == (
        one.text[:10],
        sha256(one.text.encode()).hexdigest(),
        None,
    )
    assert one.text not in repr(one)


def test_of_a_short_key_a_quarter_is_shown() -> None:
    assert credential(with_key(None), ApiKeyType.INTERNAL, "x" * 16, "api_key").key_prefix == "xxxx"


def test_a_secret_is_kept_sealed_and_found_again() -> None:
    made = credential(with_key(OLD), ApiKeyType.GITHUB, None, "api_key")

    assert (len(made.text), made.key_hash, made.key_prefix) == (64, None, None)
    assert made.text not in str(made.sealed_secret)
    assert unseal(with_key(OLD), made.sealed_secret or "") == made.text


def test_what_was_sealed_before_the_key_was_changed_is_found_again() -> None:
    before = seal(with_key(OLD), "secret")
    after = seal(with_key(f"{NEW}, {OLD}"), "secret")

    assert unseal(with_key(f"{NEW},{OLD}"), before) == "secret"
    assert unseal(with_key(NEW), after) == "secret"
    with pytest.raises(SecretUnreadable):
        unseal(with_key(NEW), before)
    with pytest.raises(SecretUnreadable):
        unseal(with_key(None), before)


def test_without_a_key_nothing_is_sealed() -> None:
    with pytest.raises(BadRequest, match="AGENTEX_SECRET_KEY"):
        credential(with_key(None), ApiKeyType.SLACK, "a signing secret", "secret")


@pytest.mark.parametrize("key", ["short", "!" * 44, OLD[:-4], f"{OLD},", f"{OLD} {NEW}"])
def test_a_key_that_is_none_is_a_wrong_setting(key: str) -> None:
    with pytest.raises(ValidationError, match="is not 32 bytes in base64") as raised:
        with_key(key)
    assert raised.value.error_count() == 1


def test_an_empty_key_is_none() -> None:
    assert Settings.model_validate({"secret_key": " ", "public_url": ""}).secret_key is None


@pytest.mark.parametrize(
    "url", ["agents.example.com", "ftp://x", "https://", "https://u:p@x", "https://x?a", "https://x/#"]
)
def test_a_public_url_takes_paths_behind_it(url: str) -> None:
    with pytest.raises(ValidationError, match="is not an http"):
        Settings(public_url=url)
