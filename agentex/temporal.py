"""The connection to Temporal: lazy, so that a process starts and answers while Temporal is down."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from agentex.codec import data_converter
from agentex.settings import Settings
from agentex.telemetry.metrics import TEMPORAL_ERRORS

log = logging.getLogger(__name__)

# Often enough that /readyz and live_data_available are never older than a person's next look.
PROBE_INTERVAL_SECONDS = 5.0


# No limit of the client's holds for making a connection: one that is accepted and left alone hangs for good.
CONNECT_SECONDS = 10.0
# What the client says of a failed connection is Rust's debug text; the first that fits says it plainly.
_MEANINGS = (
    ("NotValidForName", "its certificate is for another name; AGENTEX_TEMPORAL_TLS_SERVER_NAME says which"),
    ("Expired", "its certificate has expired"),
    (
        "InvalidCertificate",
        "its certificate is not signed by an authority that AGENTEX_TEMPORAL_TLS_CA_FILE trusts",
    ),
    (
        "CertificateRequired",
        "it wants a client certificate; set AGENTEX_TEMPORAL_TLS_CERT_FILE and _KEY_FILE",
    ),
    ("InvalidContentType", "it does not speak TLS, or not on this port; see AGENTEX_TEMPORAL_TLS"),
    ("fatal alert", "it refused the TLS connection, or this client certificate"),
    ("AlertReceived", "it refused the TLS connection, or this client certificate"),
    ("dns error", "its name is not known"),
    ("ConnectionRefused", "connection refused"),
    ("hyper::Error", "it closed the connection: does it want TLS, or another client certificate?"),
)


async def connect(settings: Settings, *, lazy: bool = False) -> Client:
    """A client of the settings' Temporal. Unless lazy, raises RuntimeError when it does not answer."""
    key = settings.temporal_api_key
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await Client.connect(
                settings.temporal_address,
                namespace=settings.temporal_namespace,
                tls=_tls(settings),
                api_key=key.get_secret_value() if key else None,
                data_converter=data_converter(settings),
                lazy=lazy,
            )
    except TimeoutError:
        raise RuntimeError(f"no answer within {CONNECT_SECONDS:g} s") from None


def _tls(settings: Settings) -> TLSConfig | bool:
    """What the client knows as TLS. Raises OSError for a file that has gone since the start."""
    if not settings.temporal_uses_tls:
        return False
    return TLSConfig(
        server_root_ca_cert=_content(settings.temporal_tls_ca_file),
        domain=settings.temporal_tls_server_name,
        client_cert=_content(settings.temporal_tls_cert_file),
        client_private_key=_content(settings.temporal_tls_key_file),
    )


def _content(file: Path | None) -> bytes | None:
    return file.read_bytes() if file else None


def explain(error: RPCError | RuntimeError | TimeoutError) -> str:
    """Why Temporal did not answer, for a person."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    said = str(error)
    return next((meaning for pattern, meaning in _MEANINGS if pattern in said), said)


class Temporal:
    """One client, and whether Temporal answered the last probe (None before the first)."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.rpc_timeout = timedelta(seconds=settings.temporal_rpc_timeout_seconds)
        self.healthy: bool | None = None

    @classmethod
    async def open(cls, settings: Settings) -> Temporal:
        """A client that connects at its first call."""
        return cls(await connect(settings, lazy=True), settings)

    async def probe(self) -> bool:
        """Ask once; never raises for a Temporal that is away."""
        try:
            # A connection that hangs must not hold up the next probe.
            async with asyncio.timeout(PROBE_INTERVAL_SECONDS):
                await self.describe_namespace()
            self.healthy = True
        except (RPCError, RuntimeError, TimeoutError) as error:
            # RuntimeError: the lazy client's first connection failed (sdk-python raises it untyped).
            if self.healthy is not False:
                log.warning(
                    "temporal does not answer",
                    extra={"action": "temporal.probe", "why": explain(error), "error": str(error)},
                )
            TEMPORAL_ERRORS.labels(call="probe").inc()
            self.healthy = False
        return self.healthy

    async def describe_namespace(self) -> None:
        """Ask for our namespace: the frontend serves a moment before an empty start has made it."""
        await self.client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=self.client.namespace), timeout=self.rpc_timeout
        )

    async def keep_probing(self) -> None:
        """Probe for as long as the process lives."""
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)


def is_gone(error: RPCError) -> bool:
    """Whether a call failed only because the thing does not exist."""
    return error.status is RPCStatusCode.NOT_FOUND
