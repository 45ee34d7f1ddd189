"""The connection to Temporal: lazy, so that a process starts and answers while Temporal is down."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from agentex.settings import Settings
from agentex.telemetry.metrics import TEMPORAL_ERRORS

log = logging.getLogger(__name__)

# Often enough that /readyz and live_data_available are never older than a person's next look.
PROBE_INTERVAL_SECONDS = 5.0


async def connect(settings: Settings, *, lazy: bool = False) -> Client:
    """A client of the settings' Temporal. Unless lazy, raises RuntimeError when it does not answer."""
    return await Client.connect(settings.temporal_address, namespace=settings.temporal_namespace, lazy=lazy)


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
            # The frontend serves a moment before an empty start has made the namespace.
            await self.client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=self.client.namespace), timeout=self.rpc_timeout
            )
            self.healthy = True
        except (RPCError, RuntimeError) as error:
            # RuntimeError: the lazy client's first connection failed (sdk-python raises it untyped).
            if self.healthy is not False:
                log.warning(
                    "temporal does not answer", extra={"action": "temporal.probe", "error": str(error)}
                )
            TEMPORAL_ERRORS.labels(call="probe").inc()
            self.healthy = False
        return self.healthy

    async def keep_probing(self) -> None:
        """Probe for as long as the process lives."""
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)


def is_already_there(error: RPCError) -> bool:
    """Whether a create failed only because the thing exists."""
    return error.status is RPCStatusCode.ALREADY_EXISTS


def is_gone(error: RPCError) -> bool:
    """Whether a call failed only because the thing does not exist."""
    return error.status is RPCStatusCode.NOT_FOUND
