"""Ids and keys: made here and nowhere else, and never parsed back."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID, uuid5

from uuid_utils.compat import uuid7

from agentex.errors import NotFound

# Root of every deterministic id; a constant, so that a repeat on another machine gives the same id.
NAMESPACE = UUID("6f0ad3f2-6f3b-5d0c-9a57-0c1f2f7f6a11")

# UUIDv7 in SQL (RFC 9562 §5.7), for rows that one INSERT … SELECT makes: Postgres before 18 has none.
UUID7_SQL = (
    "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing "
    "substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), "
    "52, 1), 53, 1), 'hex')::uuid"
)


def new_id() -> UUID:
    """A UUIDv7: ordered by time, so that indexes grow at one end."""
    return uuid7()


def first_id_of(instant: datetime) -> UUID:
    """What no new_id made at this instant or later is below, to the millisecond."""
    return UUID(int=int(instant.timestamp() * 1000) << 80)


def parse_id(value: str, what: str) -> UUID:
    """An id from a path; what cannot be an id names nothing, so NotFound rather than a schema error."""
    try:
        return UUID(value)
    except ValueError:
        raise NotFound(f"{what} {value!r} not found") from None


def fire_id(instant: datetime) -> str:
    """The fire_id of an instant: UTC to the second, e.g. 2026-12-01T09:00:00Z."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# The same in SQL, for the column or expression put in its place.
FIRE_ID_SQL = "to_char({} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"


def key_fire_id(idempotency_key: str) -> str:
    """The fire_id of a manual run whose caller gave an idempotency key."""
    return f"key:{sha256(idempotency_key.encode()).hexdigest()}"


def run_fire_id(run_id: UUID) -> str:
    """The fire_id of a manual run without a key: unique by itself."""
    return f"run:{run_id}"


def scheduled_task_name(schedule_id: UUID, fire: str) -> str:
    """The task's name at a fire (wire.md §3)."""
    return f"scheduled-run:{schedule_id}:{fire}"


def run_task_id(run_id: UUID) -> UUID:
    """The id of the task that a run makes; the same for each attempt."""
    return uuid5(NAMESPACE, f"task:{run_id}")


def run_event_id(run_id: UUID) -> UUID:
    """The id of the event that carries a run's input; the same for each attempt, so agents can dedupe."""
    return uuid5(NAMESPACE, f"event:{run_id}")


def run_message_id(run_id: UUID, index: int) -> UUID:
    """The id of a sync run's message: 0 is the input, 1… are the agent's."""
    return uuid5(NAMESPACE, f"message:{run_id}:{index}")


def delivery_key(run_id: UUID) -> str:
    """What makes an event unique within its task."""
    return f"run:{run_id}"


def rpc_delivery_key(event_id: UUID) -> str:
    """The same for an event that a client sends."""
    return f"rpc:{event_id}"


def tick_batch_id(workflow_run_id: str, round_: int) -> UUID:
    """The batch a tick opens in its round-th call; a repeat of the activity gives the same."""
    return uuid5(NAMESPACE, f"tick:{workflow_run_id}:{round_}")


def page_workflow_id(prefix: str, batch_id: UUID | str, lane: str, page: int) -> str:
    """The Temporal workflow id of a page; the prefix keeps two stacks in one namespace apart."""
    return f"{prefix}:page:{batch_id}:{lane}:{page}"


def clock_schedule_id(prefix: str, clock_id: UUID | None) -> str:
    """The Temporal Schedule id of a clock, or of the minute that all whole-minute cadences share."""
    return f"{prefix}:clock:{clock_id or 'minute'}"
