"""message/send in the database: how it is opened, its messages, its end, and what a repeat finds.

Each is one statement: one round trip, and nothing is held while an agent is at work. What many requests
open or end at the same time is one statement for all of them (Database.together).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import RowMapping
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.database import GROUP_LOCK_SQL, Database, JsonObject, group_lock_timeout, rows
from agentex.idempotency import (
    ENTRY_COLUMNS,
    KEY_WINDOW_SECONDS,
    LOCK_SQL,
    REMEMBER_SQL,
    Repeat,
    entry_json,
)
from agentex.ids import UUID7_SQL, first_id_of, new_id
from agentex.messages.models import MessageRead, StreamingStatus
from agentex.notices import CHANNEL
from agentex.tasks.models import OPEN_STATUSES, TaskRead

# In a transaction of the caller's, or as one of its own on the database.
Session: TypeAlias = AsyncSession | Database
# A process that was stopped for a moment, or whose Postgres was away, gets to renew its claims first.
LAPSE_GRACE_SECONDS = 4.0
SETTLED_AT_ONCE = 1_000
OUTCOME_UNKNOWN = (
    "the process that read the agent's answer has gone; whether the agent did the work is not known, "
    "so the message is not sent again"
)
_OPEN = ", ".join(f"'{status}'" for status in sorted(OPEN_STATUSES))


@dataclass(frozen=True)
class NewSend:
    """A message for an agent's task; the task is made with it unless it is there."""

    id: UUID
    account_id: str
    owner: str
    agent_id: UUID
    task_id: UUID
    task_is_new: bool
    # Of a new task.
    task_name: str | None
    task_params: JsonObject | None
    # The user's message, as JSON.
    content: str
    claim_seconds: float


@dataclass(frozen=True)
class AgentMessage:
    """A message of the agent's answer as it is to be stored; content is JSON."""

    id: UUID
    content: str


@dataclass(frozen=True)
class Times:
    """When a message was made and last written."""

    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Ended:
    """How a message/send ended: with an error, or with these messages of the agent."""

    error: str | None
    message_ids: list[UUID]


@dataclass(frozen=True)
class _Asked:
    """A message/send that is to be opened, and how a repeat of it is known."""

    new: NewSend
    repeat: Repeat


async def open_send(session: Session, new: NewSend, repeat: Repeat) -> TaskRead | None:
    """Store the user's message, and the task if it is new; with it what makes a repeat known.

    None when nothing was made: the agent was deleted, the task closed or its name taken since. On the
    database itself it shares its statement with those that are opened meanwhile.
    """
    write = _open_in_new_tasks if new.task_is_new else _open_in_tasks
    asked = _Asked(new, repeat)
    if isinstance(session, Database):
        return await session.together(write, asked)
    return (await write(session, [asked]))[0]


async def _open_in_new_tasks(session: Session, asked: Sequence[_Asked]) -> list[TaskRead | None]:
    return await _open(session, _OPEN_IN_NEW_TASK_SQL, asked)


async def _open_in_tasks(session: Session, asked: Sequence[_Asked]) -> list[TaskRead | None]:
    return await _open(session, _OPEN_IN_TASK_SQL, asked)


async def _open(session: Session, sql: str, asked: Sequence[_Asked]) -> list[TaskRead | None]:
    made = await rows(
        session, sql, asked=_list(map(_asked_json, asked)), lock_timeout=group_lock_timeout(asked)
    )
    tasks = {row["send_id"]: _task(row) for row in made}
    return [tasks.get(one.new.id) for one in asked]


def _asked_json(asked: _Asked) -> str:
    new = asked.new
    given = {
        "send_id": new.id,
        "message_id": new_id(),
        "for_account": new.account_id,
        "for_agent": new.agent_id,
        "for_task": new.task_id,
        "claim": new.claim_seconds,
        **_FEW,
        **entry_json(new_id(), asked.repeat, {"message_send": str(new.id)}),
    }
    if new.task_is_new:
        given |= {"task_owner": new.owner, "task_name": new.task_name, "task_params": new.task_params}
    return _with_json(given, "content", new.content)


async def reopen_unsent(session: Session, send_id: UUID, *, claim_seconds: float) -> UUID | None:
    """Take up a message/send that the agent certainly has not begun; returns its task, None for any other."""
    found = await rows(
        session,
        """
        UPDATE message_sends SET ended_at = NULL, error = NULL, unsent = false,
            claimed_until = clock_timestamp() + make_interval(secs => :claim)
        WHERE id = :send_id AND unsent RETURNING task_id
        """,
        send_id=send_id,
        claim=claim_seconds,
    )
    return found[0]["task_id"] if found else None


async def renew(session: Session, send_id: UUID, *, claim_seconds: float) -> None:
    """The answer is still being read."""
    await rows(
        session,
        """
        UPDATE message_sends SET claimed_until = clock_timestamp() + make_interval(secs => :claim)
        WHERE id = :send_id AND ended_at IS NULL
        """,
        send_id=send_id,
        claim=claim_seconds,
    )


async def add_message(
    session: Session, send_id: UUID, message: AgentMessage, status: StreamingStatus
) -> Times | None:
    """A message of the agent that has just begun; None when the task has been deleted."""
    made = await rows(
        session,
        """
        WITH send AS (
            UPDATE message_sends SET message_ids = message_ids || CAST(:message_id AS uuid)
            WHERE id = :send_id RETURNING account_id, task_id
        )
        INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
        SELECT :message_id, account_id, task_id, CAST(:content AS jsonb), :status, now.now, now.now
        FROM send, (SELECT clock_timestamp() AS now) now
        RETURNING created_at, updated_at
        """,
        send_id=send_id,
        message_id=message.id,
        content=message.content,
        status=status,
    )
    return Times(**made[0]) if made else None


async def complete_message(session: Session, message: AgentMessage) -> Times | None:
    """A message of the agent that is complete; None when it has been deleted."""
    written = await rows(
        session,
        """
        UPDATE messages SET content = CAST(:content AS jsonb), streaming_status = 'DONE',
            updated_at = clock_timestamp()
        WHERE id = :message_id RETURNING created_at, updated_at
        """,
        message_id=message.id,
        content=message.content,
    )
    return Times(**written[0]) if written else None


@dataclass(frozen=True)
class End:
    """How a message/send ends: all messages in order, and those that are not stored whole yet."""

    message_ids: list[UUID]
    unstored: list[AgentMessage]
    error: str | None = None
    unsent: bool = False


@dataclass(frozen=True)
class _Ending:
    send_id: UUID
    end: End


async def end_send(session: Session, send_id: UUID, end: End) -> dict[UUID, Times] | None:
    """Write the end, and tell those who wait for it; None when the task has been deleted.

    On the database itself it shares its statement with those that end meanwhile.
    """
    ending = _Ending(send_id, end)
    if isinstance(session, Database):
        return await session.together(_end, ending)
    return (await _end(session, [ending]))[0]


async def _end(session: Session, endings: Sequence[_Ending]) -> list[dict[UUID, Times] | None]:
    # An end may come once more behind itself, from a request that was cut off: one statement writes it once.
    once = {ending.send_id: ending for ending in endings}
    found = await rows(
        session,
        _END_SQL,
        asked=_list(map(_ending_json, once.values())),
        lock_timeout=group_lock_timeout(endings),
    )
    written = {row["id"]: Times(row["created_at"], row["updated_at"]) for row in found}
    return [
        {message.id: written[message.id] for message in end.unstored} if send_id in written else None
        for send_id, end in ((ending.send_id, once[ending.send_id].end) for ending in endings)
    ]


def _ending_json(ending: _Ending) -> str:
    end = ending.end
    messages = [
        f'{{"id":"{message.id}","place":{place},"content":{message.content}}}'
        for place, message in enumerate(end.unstored)
    ]
    given = {
        "send_id": ending.send_id,
        "message_ids": end.message_ids,
        "error": end.error,
        "unsent": end.unsent,
        **_FEW,
    }
    return _with_json(given, "messages", _list(messages))


async def await_end(session: Session, send_id: UUID) -> float | None:
    """Have its end notified: how many seconds its claim has left, None when it has ended (or is gone)."""
    found = await rows(
        session,
        """
        UPDATE message_sends SET awaited = true WHERE id = :send_id AND ended_at IS NULL
        RETURNING extract(epoch FROM claimed_until - clock_timestamp())::float8 AS seconds
        """,
        send_id=send_id,
    )
    return found[0]["seconds"] if found else None


async def read_end(session: Session, send_id: UUID) -> Ended | None:
    """How it ended; None when it has not, or when it went with its task."""
    found = await rows(
        session,
        "SELECT error, message_ids FROM message_sends WHERE id = :send_id AND ended_at IS NOT NULL",
        send_id=send_id,
    )
    return Ended(**found[0]) if found else None


async def settle_lapsed(session: Session, send_id: UUID | None = None) -> int:
    """End those whose process has gone (or this one), and their messages; returns how many it ended."""
    found = await rows(
        session,
        _SETTLE_SQL,
        send_id=send_id,
        error=OUTCOME_UNKNOWN,
        grace=LAPSE_GRACE_SECONDS,
        limit=SETTLED_AT_ONCE,
    )
    return len(found)


async def read_messages(session: Session, message_ids: Sequence[UUID]) -> list[MessageRead]:
    """The messages of an answer, in its order; those that were deleted since are left out."""
    found = await rows(
        session,
        """
        SELECT m.id, m.task_id, m.content::text AS content, m.streaming_status, m.created_at, m.updated_at
        FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS i (id, place) JOIN messages m ON m.id = i.id
        ORDER BY i.place
        """,
        ids=list(message_ids),
    )
    return [MessageRead.model_validate({**row, "content": json.loads(row["content"])}) for row in found]


async def forget_old_sends(session: Session, now: datetime) -> None:
    """Delete those that no repeat can ask for any more: their ids are in the order of their making."""
    first_kept = first_id_of(datetime.fromtimestamp(now.timestamp() - KEY_WINDOW_SECONDS, tz=now.tzinfo))
    await rows(
        session,
        "DELETE FROM message_sends WHERE id < :first_kept AND ended_at IS NOT NULL",
        first_kept=first_kept,
    )


_TASK_COLUMNS = """
    id, name, status, status_reason, created_at, updated_at, cleaned_at, params::text AS params,
    task_metadata::text AS task_metadata
"""
# Postgres expects a hundred rows of a function but one of what is equal to something: only then it looks each
# up by its key, and does not read a whole table with a plan made while that was small. So each has a 1.
_FEW = {"one": 1}
# Everything hangs on `ready`, so that nothing else is locked before the entries.
_OPEN_SQL = f"""
    WITH patience AS MATERIALIZED ({GROUP_LOCK_SQL}), asked AS MATERIALIZED (
        SELECT a.* FROM patience, jsonb_to_recordset(CAST(:asked AS jsonb)) AS a (
            send_id uuid, message_id uuid, content jsonb, claim float8, for_account text, for_agent uuid,
            for_task uuid, task_owner text, task_name text, task_params jsonb, one int, {ENTRY_COLUMNS})
        WHERE one = 1
    ), held AS MATERIALIZED ({LOCK_SQL.format(asked="asked")}), ready AS MATERIALIZED (
        SELECT asked.*, clock_timestamp() AS now FROM asked, (SELECT count(*) FROM held) AS all_held
    ), {{task}}, message AS (
        INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
        SELECT message_id, account_id, id, content, 'DONE', clock_timestamp(), clock_timestamp() FROM task
    ), send AS (
        INSERT INTO message_sends (id, account_id, task_id, claimed_until, awaited, unsent)
        SELECT send_id, account_id, id, clock_timestamp() + make_interval(secs => claim), false, false
        FROM task
    ), entry AS ({REMEMBER_SQL} FROM task){{tracked}}
    SELECT send_id, {_TASK_COLUMNS} FROM task
"""
_TRACKED_SQL = f""", tracked AS (
        INSERT INTO trackers (id, account_id, agent_id, task_id, created_at, updated_at)
        SELECT {UUID7_SQL}, account_id, agent_id, id, created_at, created_at FROM task
    )"""
_OPEN_IN_NEW_TASK_SQL = _OPEN_SQL.format(
    # In the order of the names, for whoever wants the same one waits for this transaction's end.
    task="""made AS (
        INSERT INTO tasks (id, account_id, owner, agent_id, name, status, params, created_at, updated_at)
        SELECT for_task, a.account_id, task_owner, a.id, task_name, 'RUNNING', task_params, now, now
        FROM ready JOIN agents a ON a.id = for_agent AND a.account_id = for_account AND a.deleted_at IS NULL
        ORDER BY a.account_id, task_name
        ON CONFLICT (account_id, name) DO NOTHING
        RETURNING *
    ), task AS (SELECT * FROM made JOIN ready ON for_task = made.id)""",
    tracked=_TRACKED_SQL,
)
_OPEN_IN_TASK_SQL = _OPEN_SQL.format(
    # IS TRUE: what is looked at behind the task's key, and never looked up in its place.
    task=f"""task AS (
        SELECT t.*, ready.* FROM ready JOIN tasks t ON t.id = for_task AND t.status IN ({_OPEN})
            AND (t.account_id = for_account AND t.agent_id = for_agent) IS TRUE
        JOIN agents a ON a.id = for_agent AND a.deleted_at IS NULL
    )""",
    tracked="",
)
_END_SQL = f"""
    WITH patience AS MATERIALIZED ({GROUP_LOCK_SQL}), asked AS MATERIALIZED (
        SELECT a.* FROM patience, jsonb_to_recordset(CAST(:asked AS jsonb)) AS a (
            send_id uuid, message_ids uuid[], messages jsonb, error text, unsent boolean, one int)
        WHERE one = 1
    ), ended AS (
        UPDATE message_sends s SET ended_at = clock_timestamp(), message_ids = asked.message_ids,
            error = asked.error, unsent = asked.unsent
        FROM asked WHERE s.id = send_id
        RETURNING s.id, s.account_id, s.task_id, s.awaited, s.ended_at, asked.messages
    ), stored AS (
        INSERT INTO messages (id, account_id, task_id, content, streaming_status, created_at, updated_at)
        SELECT m.id, ended.account_id, ended.task_id, m.content, 'DONE',
            statement_timestamp() + make_interval(secs => m.place / 1000000.0), statement_timestamp()
        FROM ended, jsonb_to_recordset(ended.messages) AS m (id uuid, place int, content jsonb)
        ON CONFLICT (id) DO UPDATE SET content = excluded.content, streaming_status = 'DONE',
            updated_at = clock_timestamp()
        RETURNING id, created_at, updated_at
    )
    SELECT id, created_at, updated_at, NULL AS told FROM stored
    UNION ALL
    SELECT id, ended_at, ended_at,
        CASE WHEN awaited THEN pg_notify('{CHANNEL}', 'message_send:' || id)::text END FROM ended
"""
_SETTLE_SQL = f"""
    WITH lapsed AS (
        SELECT id, message_ids FROM message_sends
        WHERE ended_at IS NULL AND claimed_until < clock_timestamp() - make_interval(secs => :grace)
            AND (CAST(:send_id AS uuid) IS NULL OR id = CAST(:send_id AS uuid))
        ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE message_sends s SET ended_at = clock_timestamp(), error = :error
        FROM lapsed WHERE s.id = lapsed.id RETURNING s.id, s.awaited
    ), closed AS (
        UPDATE messages SET streaming_status = 'DONE', updated_at = clock_timestamp()
        WHERE id IN (SELECT unnest(message_ids) FROM lapsed) AND streaming_status = 'IN_PROGRESS'
    )
    SELECT id, CASE WHEN awaited THEN pg_notify('{CHANNEL}', 'message_send:' || id)::text END AS told
    FROM ended
"""


def notice_key(send_id: UUID) -> str:
    """What is notified when this message/send has ended and somebody waits."""
    return f"message_send:{send_id}"


def _list(items: Iterable[str]) -> str:
    """A JSON list of what is JSON already."""
    return f"[{','.join(items)}]"


def _with_json(given: JsonObject, name: str, value: str) -> str:
    """These as a JSON object, with one more member that is JSON already."""
    return f'{to_json(given).decode()[:-1]},"{name}":{value}}}'


def _task(row: RowMapping) -> TaskRead:
    params, metadata = row["params"], row["task_metadata"]
    return TaskRead.model_validate(
        {
            **row,
            "params": json.loads(params) if params else None,
            "task_metadata": json.loads(metadata) if metadata else None,
        }
    )
