"""Every table, for Alembic: importing this file imports them all."""

from __future__ import annotations

from sqlmodel import SQLModel

from agentex.agent_api_keys.models import AgentApiKey
from agentex.agents.models import Agent
from agentex.clocks.models import Clock
from agentex.deployments.models import Deployment, DeploymentHistory
from agentex.events.models import Event
from agentex.idempotency import IdempotencyEntry
from agentex.messages.models import Message
from agentex.runs.models import Run
from agentex.schedules.models import Schedule, ScheduleClock, ScheduleRevision, ScheduleTotals
from agentex.tasks.models import Task

TABLES = (
    Agent,
    AgentApiKey,
    Clock,
    Deployment,
    DeploymentHistory,
    Event,
    IdempotencyEntry,
    Message,
    Run,
    Schedule,
    ScheduleClock,
    ScheduleRevision,
    ScheduleTotals,
    Task,
)
METADATA = SQLModel.metadata
