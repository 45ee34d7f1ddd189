"""What is sealed of a payload and a failure, with which key, and what opens it."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter, default
from temporalio.exceptions import ApplicationError

from agentex.cli.main import describe_wrong_settings
from agentex.codec import data_converter
from agentex.settings import Settings

ONE, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
VALUE = {"batch_id": "01930000-0000-7000-8000-0000000000aa", "page": 3}


def converter(keys: str | None, *, seals: bool = True) -> DataConverter:
    return data_converter(Settings.model_validate({"secret_key": keys, "temporal_encryption": seals}))


async def sealed(keys: str) -> Payload:
    return (await converter(keys).encode([VALUE]))[0]


async def test_a_payload_is_sealed_as_temporal_s_samples_have_it() -> None:
    payload = await sealed(ONE)
    assert set(payload.metadata) == {"encoding", "encryption-key-id"}
    assert payload.metadata["encoding"] == b"binary/encrypted"
    assert b"batch_id" not in payload.SerializeToString()
    assert await converter(ONE).decode([payload]) == [VALUE]


async def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert (await sealed(ONE)).data != (await sealed(ONE)).data


async def test_the_first_key_seals_and_all_open() -> None:
    old = await sealed(ONE)
    rotated = converter(f"{OTHER},{ONE}")
    new = (await rotated.encode([VALUE]))[0]
    assert await rotated.decode([old, new]) == [VALUE, VALUE]
    assert new.metadata["encryption-key-id"] == (await sealed(OTHER)).metadata["encryption-key-id"]
    assert await converter(OTHER).decode([new]) == [VALUE]


async def test_the_secret_key_itself_is_not_the_key() -> None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    payload = await sealed(ONE)
    with pytest.raises(InvalidTag):
        AESGCM(base64.b64decode(ONE)).decrypt(payload.data[:12], payload.data[12:], None)


async def test_what_was_not_sealed_is_read_after_turning_it_on() -> None:
    plain = await default().encode([VALUE])
    assert await converter(ONE).decode(plain) == [VALUE]


async def test_what_was_sealed_is_read_after_turning_it_off_and_nothing_more_is_sealed() -> None:
    off = converter(ONE, seals=False)
    assert await off.decode([await sealed(ONE)]) == [VALUE]
    assert await off.encode([VALUE]) == await default().encode([VALUE])


@pytest.mark.parametrize("damage", ["another key", "changed", "cut short"])
async def test_what_no_key_opens_is_no_value(damage: str) -> None:
    payload = await sealed(OTHER if damage == "another key" else ONE)
    if damage == "changed":
        payload.data = payload.data[:-1] + bytes([payload.data[-1] ^ 1])
    if damage == "cut short":
        payload.data = payload.data[:5]
    codec = converter(ONE).payload_codec
    assert codec is not None
    assert await codec.decode([payload]) == [payload]
    with pytest.raises(KeyError, match="Unknown payload encoding binary/encrypted"):
        await converter(ONE).decode([payload])


async def test_a_failure_s_words_and_stack_are_sealed_and_come_back() -> None:
    failure = Failure()
    await converter(ONE).encode_failure(ApplicationError("tell nobody"), failure)
    assert failure.message == "Encoded failure"
    assert b"tell nobody" not in failure.SerializeToString()
    assert failure.encoded_attributes.metadata["encoding"] == b"binary/encrypted"
    error = await converter(ONE, seals=False).decode_failure(failure)
    assert "tell nobody" in str(error)


def test_without_a_secret_key_there_is_no_codec() -> None:
    assert data_converter(Settings()) is default()


def test_sealing_without_a_secret_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTEX_TEMPORAL_ENCRYPTION", "true")
    monkeypatch.delenv("AGENTEX_SECRET_KEY", raising=False)
    with pytest.raises(ValidationError) as caught:
        Settings()
    [line] = describe_wrong_settings(caught.value)
    assert line.startswith("AGENTEX_TEMPORAL_ENCRYPTION is true, which needs AGENTEX_SECRET_KEY")


def test_a_process_that_meets_nothing_sealed_loads_no_cryptography() -> None:
    program = """
import asyncio, sys
from agentex.codec import data_converter
from agentex.settings import Settings
converter = data_converter(Settings())
assert asyncio.run(converter.decode(asyncio.run(converter.encode([1])))) == [1]
assert "cryptography" not in sys.modules
"""
    environment = os.environ | {"AGENTEX_SECRET_KEY": ONE}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
