"""Every table, for Alembic: importing this file imports them all."""

from __future__ import annotations

from sqlmodel import SQLModel

from agentex.agents.models import Agent
from agentex.clocks.models import Clock
from agentex.events.models import Event
from agentex.idempotency import IdempotencyEntry
from agentex.messages.models import Message
from agentex.runs.models import Run
from agentex.schedules.models import Schedule, ScheduleClock, ScheduleRevision, ScheduleTotals
from agentex.streams.models import StreamWatch
from agentex.tasks.models import Task

TABLES = (
    Agent,
    Clock,
    Event,
    IdempotencyEntry,
    Message,
    Run,
    Schedule,
    ScheduleClock,
    ScheduleRevision,
    ScheduleTotals,
    StreamWatch,
    Task,
)
METADATA = SQLModel.metadata
