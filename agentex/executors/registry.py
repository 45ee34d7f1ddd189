"""The executors by acp_type; a new one is a file and a line here."""

from __future__ import annotations

from agentex.acp.client import AcpClient
from agentex.agents.models import AcpType
from agentex.executors.acp_async import AcpAsync
from agentex.executors.acp_sync import AcpSync
from agentex.executors.base import Executor, Lane
from agentex.settings import Settings

EXECUTORS: dict[AcpType, type[AcpAsync] | type[AcpSync]] = {
    AcpType.SYNC: AcpSync,
    AcpType.ASYNC: AcpAsync,
    AcpType.AGENTIC: AcpAsync,
}

_ANSWERING = ", ".join(f"'{kind}'" for kind, executor in EXECUTORS.items() if executor.lane is Lane.ANSWER)
# The lane of an acp_type in SQL, for the statements that open runs.
LANE_SQL = f"CASE WHEN {{}} IN ({_ANSWERING}) THEN '{Lane.ANSWER}' ELSE '{Lane.DELIVER}' END"


def executor_for(acp_type: AcpType, acp: AcpClient, settings: Settings) -> Executor:
    """The executor that speaks to agents of this type."""
    return EXECUTORS[acp_type](acp, settings)
