"""What Temporal gets to see: payloads sealed with AES-256-GCM where AGENTEX_TEMPORAL_ENCRYPTION is true.

secret key   AGENTEX_TEMPORAL_ENCRYPTION   written        read
none         false                         plain          plain
set          false                         plain          plain and sealed, so that it can be turned off
set          true                          sealed, also   plain and sealed, so that it can be turned on
                                           failures

A sealed payload is what Temporal's samples have: encoding `binary/encrypted`, the id of the key beside it,
and as data a nonce of 12 bytes with the sealed Payload message behind it.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
    default,
)

from agentex.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"
# Other uses of the secret key derive other keys from it.
_KEY_INFO = b"agentex: temporal payloads, AES-256-GCM"
# The id of a key is derived beside it: it tells keys apart and nothing of them.
_ID_INFO = b"agentex: temporal payloads, key id"
_KEY_BYTES, _ID_BYTES, _NONCE_BYTES = 32, 6, 12


class Codec(PayloadCodec):
    """Seals with the first of the secret keys, if it seals at all, and opens with each of them.

    What none of the keys opens stays as it is, and nothing can be made of it: an agent's workflows may have
    keys of their own, and their answers are told apart by their encoding.
    """

    def __init__(self, secret_keys: Sequence[str], *, seals: bool) -> None:
        self._secret_keys = secret_keys
        self._seals = seals

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Sealed copies, or the payloads as they are."""
        if not self._seals:
            return list(payloads)
        key_id, box = next(iter(self._boxes.items()))
        return [_seal(payload, key_id, box) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """What was sealed; what was not, or by others, as it is."""
        return [self._open(payload) for payload in payloads]

    def _open(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        from cryptography.exceptions import InvalidTag

        box = self._boxes.get(payload.metadata.get(KEY_ID, b""))
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        if box is None or len(nonce) < _NONCE_BYTES:
            return payload
        try:
            return Payload.FromString(box.decrypt(nonce, sealed, None))
        except InvalidTag:
            return payload

    @cached_property
    def _boxes(self) -> dict[bytes, AESGCM]:
        """By the keys' ids, in the order of the secret keys."""
        # Here, for a process that never meets a sealed payload does without 10 MB.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        secrets = [base64.urlsafe_b64decode(key) for key in self._secret_keys]
        return {
            _derived(secret, _ID_INFO, _ID_BYTES).hex().encode(): AESGCM(
                _derived(secret, _KEY_INFO, _KEY_BYTES)
            )
            for secret in secrets
        }


def data_converter(settings: Settings) -> DataConverter:
    """How a client of these settings writes and reads what goes through Temporal."""
    if settings.secret_key is None:
        return default()
    seals = settings.temporal_encryption
    converter = dataclasses.replace(
        default(), payload_codec=Codec(settings.secret_key.get_secret_value().split(","), seals=seals)
    )
    if not seals:
        return converter
    # A failure's message and stack become a payload, which the codec seals; otherwise they stand beside it.
    return dataclasses.replace(
        converter, failure_converter_class=DefaultFailureConverterWithEncodedAttributes
    )


def _seal(payload: Payload, key_id: bytes, box: AESGCM) -> Payload:
    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + box.encrypt(nonce, payload.SerializeToString(), None)
    return Payload(metadata={"encoding": ENCODING, KEY_ID: key_id}, data=sealed)


def _derived(secret: bytes, info: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)
