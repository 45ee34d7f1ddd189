"""Every table, for Alembic: importing this file imports them all."""

from __future__ import annotations

from sqlmodel import SQLModel

from agentex.agent_api_keys.models import AgentApiKey
from agentex.agents.models import Agent
from agentex.audit.models import AuditEntry
from agentex.auth.models import ApiKey, Grant, Member, Registration
from agentex.checkpoints.models import Checkpoint, CheckpointBlob, CheckpointWrite
from agentex.clocks.models import Clock
from agentex.deployments.models import Deployment, DeploymentHistory
from agentex.events.models import Event
from agentex.idempotency import IdempotencyEntry
from agentex.messages.models import Message
from agentex.rpc.models import MessageSend
from agentex.runs.models import Run
from agentex.schedules.models import Schedule, ScheduleClock, ScheduleRevision, ScheduleTotals
from agentex.spans.models import Span
from agentex.states.models import State
from agentex.streams.models import StreamWatch
from agentex.tasks.models import Task
from agentex.trackers.models import Tracker

TABLES = (
    Agent,
    AgentApiKey,
    ApiKey,
    AuditEntry,
    Checkpoint,
    CheckpointBlob,
    CheckpointWrite,
    Clock,
    Deployment,
    DeploymentHistory,
    Event,
    Grant,
    IdempotencyEntry,
    Member,
    Message,
    MessageSend,
    Registration,
    Run,
    Schedule,
    ScheduleClock,
    ScheduleRevision,
    ScheduleTotals,
    Span,
    State,
    StreamWatch,
    Task,
    Tracker,
)
METADATA = SQLModel.metadata
