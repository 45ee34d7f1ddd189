"""Settings, read from the environment (prefix AGENTEX_); units stand in the names."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class WorkerQueue(StrEnum):
    """A task queue with slots of its own, so that slow answers never starve a tick."""

    TICKS = "ticks"
    DELIVER = "deliver"
    ANSWERS = "answers"


class Settings(BaseSettings):
    """One process's settings. Every field is an environment variable, e.g. AGENTEX_PORT."""

    model_config = SettingsConfigDict(env_prefix="AGENTEX_", extra="ignore", frozen=True)

    database_url: str = "postgresql://127.0.0.1:5432/agentex"
    # One process: 10 requests at once each need one connection for ~2 ms; the rest is for the worker's pages.
    database_pool_size: PositiveInt = 10
    database_max_overflow: int = 10
    # A request that cannot get a connection within this answers 503 rather than hang.
    database_connect_timeout_seconds: PositiveFloat = 3
    # No statement of a request takes this long unless something holds a lock it needs.
    database_statement_timeout_seconds: PositiveFloat = 30

    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    # Prefix of the three task queues and of every Temporal id, so that two stacks can share a namespace.
    temporal_task_queue: str = "agentex"
    # A call to a Temporal that is down blocks 9.8 s without a limit of ours.
    temporal_rpc_timeout_seconds: PositiveFloat = 1

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 5003
    auth: Literal["none"] = "none"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    # 1 MiB holds every prompt seen so far; larger inputs belong in a store, with a link in the input.
    max_body_bytes: PositiveInt = 1_048_576

    enable_agent_run_schedules: bool = Field(default=False, validation_alias="ENABLE_AGENT_RUN_SCHEDULES")

    # Which queues this worker process serves: all, or some, e.g. "ticks,deliver".
    worker_queues: Annotated[frozenset[WorkerQueue], NoDecode] = frozenset(WorkerQueue)
    # Slots per queue (design.md §4): opening is short, pages deliver for seconds, answers wait for minutes.
    worker_tick_slots: PositiveInt = 10
    worker_deliver_slots: PositiveInt = 20
    worker_answer_slots: PositiveInt = 200
    # Where the worker serves /healthz, /readyz and /metrics; 0 takes any free port.
    worker_port: Annotated[int, Field(ge=0, le=65535)] = 5004
    # A deploy must not cost paid answers: SIGTERM waits this long for open ones.
    drain_seconds: PositiveFloat = 1800
    # Ctrl-C of the dev stack is a person waiting.
    interrupt_drain_seconds: PositiveFloat = 5

    # Within this of its instant a run is on time; later ones follow the catch-up rule.
    late_after_seconds: PositiveFloat = 30
    # The newest missed instant still runs when it is less than this late.
    catch_up_within_seconds: PositiveFloat = 3600
    sweep_interval_seconds: PositiveFloat = 5
    # Listing 1,000 Temporal Schedules takes ~0.1 s; every 20 s keeps a lost one below a minute.
    sweep_temporal_interval_seconds: PositiveFloat = 20
    # A due run nobody works at is taken up again after this.
    stuck_after_seconds: PositiveFloat = 30
    clock_retire_after_seconds: PositiveFloat = 600

    # Runs are forgotten this long after their end, with their tasks, events and messages; 0 keeps all.
    run_retention_days: Annotated[int, Field(ge=0, le=36_500)] = 90

    # A claim outlives a stall of the process; the heartbeat renews it every 2 s.
    claim_seconds: PositiveFloat = 60
    claim_renew_seconds: PositiveFloat = 2
    # In flight per agent and process, on the deliver and on the answer lane.
    deliveries_per_agent: PositiveInt = 32
    answers_per_agent: PositiveInt = 200
    task_create_timeout_seconds: PositiveFloat = 60
    event_send_timeout_seconds: PositiveFloat = 30
    answer_timeout_seconds: PositiveFloat = 1800
    agent_connect_timeout_seconds: PositiveFloat = 5
    # Servers close idle connections after 5 s; a request on a closing one would be outcome_unknown.
    agent_idle_connection_seconds: PositiveFloat = 2
    # One answer of an agent, whole; a longer one is refused as a protocol error.
    agent_max_answer_bytes: PositiveInt = 16_777_216
    # Consecutive timeouts from one agent after which a page stops sending to it.
    agent_timeouts_in_a_row: PositiveInt = 8

    @field_validator("worker_queues", mode="before")
    @classmethod
    def _split_queues(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("enable_agent_run_schedules", mode="before")
    @classmethod
    def _strict_flag(cls, value: object) -> object:
        if isinstance(value, bool):
            return value
        flags = {"true": True, "1": True, "false": False, "0": False}
        if not isinstance(value, str) or value not in flags:
            raise ValueError(f"ENABLE_AGENT_RUN_SCHEDULES is {value!r}; it takes true, false, 1 or 0")
        return flags[value]

    @cached_property
    def async_database_url(self) -> str:
        """The URL with SQLAlchemy's asyncpg driver in it, whatever driver it was given with."""
        _, _, rest = self.database_url.partition("://")
        return f"postgresql+asyncpg://{rest}"

    def task_queue(self, queue: WorkerQueue) -> str:
        """The Temporal task queue of one kind of work, e.g. agentex-ticks."""
        return f"{self.temporal_task_queue}-{queue}"
