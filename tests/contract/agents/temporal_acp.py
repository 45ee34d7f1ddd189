"""The ACP server of a Temporal agent: it starts a workflow for each task and signals it each event."""

from __future__ import annotations

import os

from agentex.lib.sdk.fastacp.fastacp import FastACP
from agentex.lib.types.fastacp import TemporalACPConfig

acp = FastACP.create(
    acp_type="async",
    config=TemporalACPConfig(type="temporal", temporal_address=os.environ["TEMPORAL_ADDRESS"]),
)
