"""Repeats of a POST: found by the caller's key, or by the client's own count of retries.

An unmodified client repeats a POST silently with `x-stainless-retry-count: n` and no key. Each POST that
makes something leaves an entry, in the transaction that makes it; a repeat takes the newest entry of the
same request with a lower count, not older than ten minutes, answers with its result, and leaves it with
its own count: consumed for other requests, found again by this one's next repeat.

Messages and states are too many for that: a first request without a key leaves none, and a repeat of it knows
what was made by its content (messages/repeats.py, states/service.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.principal import Principal
from agentex.database import JsonColumn, JsonObject, rows
from agentex.errors import InvalidInput
from agentex.ids import new_id

# A client gives up after two repeats within seconds; ten minutes cover its longest timeout of 300 s.
REPEAT_WINDOW_SECONDS = 600
# A caller's own key is remembered for a day.
KEY_WINDOW_SECONDS = 86_400
MAX_KEY_LENGTH = 255


class IdempotencyEntry(SQLModel, table=True):
    """One POST that made something, and what it answered."""

    __tablename__ = "idempotency_keys"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        Index("ix_idempotency_keys_fingerprint_created_at", "fingerprint", text("created_at DESC")),
        Index("ix_idempotency_keys_created_at", "created_at"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    # sha256 of what makes two requests the same: of the key, or of the whole request.
    fingerprint: str
    # sha256 of the body, to tell a repeat from another request under the same key.
    body_hash: str
    retry_count: int
    answer: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    created_at: datetime


@dataclass(frozen=True)
class Repeat:
    """How one request would be known again."""

    fingerprint: str
    body_hash: str
    retry_count: int
    key: str | None

    @property
    def may_be_one(self) -> bool:
        """Whether there may be an entry: only then is it worth looking for."""
        return self.key is not None or self.retry_count > 0

    @property
    def window_seconds(self) -> int:
        """How long an entry of this request answers its repeats."""
        return KEY_WINDOW_SECONDS if self.key else REPEAT_WINDOW_SECONDS


@dataclass(frozen=True)
class Remembered:
    """An entry's id, and what it answers."""

    id: UUID
    answer: JsonObject


@dataclass(frozen=True)
class Request:
    """The parts of a request that its repeats share."""

    method: str
    path: str
    body: bytes
    peer: str
    user_agent: str
    retry_count: int = 0
    key: str | None = None


def repeat_of(request: Request, principal: Principal) -> Repeat:
    """The fingerprint of a request; raises InvalidInput for a key that is empty or too long."""
    if request.key is not None and not 0 < len(request.key) <= MAX_KEY_LENGTH:
        raise InvalidInput(
            "Idempotency-Key", f"takes 1 to {MAX_KEY_LENGTH} characters, not {len(request.key)}"
        )
    body_hash = sha256(request.body).hexdigest()
    who = principal.model_dump_json()
    parts = [request.method, request.path, who]
    parts += ["key", request.key] if request.key else [body_hash, request.peer, request.user_agent]
    fingerprint = sha256(json.dumps(parts).encode()).hexdigest()
    return Repeat(fingerprint, body_hash, request.retry_count, request.key)


async def find_answer(session: AsyncSession, repeat: Repeat) -> JsonObject | None:
    """The answer that this request already had, or None when it is new; see find_entry."""
    entry = await find_entry(session, repeat)
    return entry.answer if entry else None


async def find_entry(session: AsyncSession, repeat: Repeat) -> Remembered | None:
    """What this request already had as its answer, or None when it is new.

    Holds an advisory lock on the request until the transaction ends, so that a repeat that overtakes
    the original waits for it. Raises InvalidInput when the key was used with another body.
    """
    await _lock(session, repeat)
    if not repeat.may_be_one:
        return None
    found = await rows(
        session,
        """
        UPDATE idempotency_keys SET retry_count = :retry_count
        WHERE id = (
            SELECT id FROM idempotency_keys
            WHERE fingerprint = :fingerprint AND (:by_key OR retry_count < :retry_count)
              AND created_at > clock_timestamp() - make_interval(secs => :window)
            ORDER BY created_at DESC, id DESC LIMIT 1)
        RETURNING id, body_hash, answer::text AS answer
        """,
        fingerprint=repeat.fingerprint,
        by_key=repeat.key is not None,
        retry_count=repeat.retry_count,
        window=repeat.window_seconds,
    )
    if not found:
        return None
    if found[0]["body_hash"] != repeat.body_hash:
        raise InvalidInput("Idempotency-Key", f"{repeat.key!r} was used with another body; use a new key")
    return Remembered(found[0]["id"], json.loads(found[0]["answer"]))


# For a statement of the caller's own that is all of its transaction, for many requests at once: the columns
# of what is asked for (a list of entry_json as JSON), the locks that find_entry takes first, to be taken
# `FROM` what is asked, and the entries, `FROM` what was made of it, so that there is none where nothing was.
ENTRY_COLUMNS = """entry_id uuid, entry_lock bigint, entry_fingerprint text, entry_body_hash text,
    entry_retry_count int, entry_answer jsonb"""
# In the order of their numbers, so that no two groups wait for each other.
LOCK_SQL = """
    SELECT pg_advisory_xact_lock(entry_lock) FROM (SELECT entry_lock FROM {asked} ORDER BY entry_lock) AS o
"""
REMEMBER_SQL = """
    INSERT INTO idempotency_keys (id, fingerprint, body_hash, retry_count, answer, created_at)
    SELECT entry_id, entry_fingerprint, entry_body_hash, entry_retry_count, entry_answer, clock_timestamp()
"""
_REMEMBER_ONE_SQL = f"{REMEMBER_SQL} FROM jsonb_to_record(CAST(:asked AS jsonb)) AS asked ({ENTRY_COLUMNS})"


def entry_json(entry_id: UUID, repeat: Repeat, answer: JsonObject) -> JsonObject:
    """What ENTRY_COLUMNS names, for LOCK_SQL and REMEMBER_SQL."""
    return {
        "entry_id": entry_id,
        "entry_lock": lock_number(repeat),
        "entry_fingerprint": repeat.fingerprint,
        "entry_body_hash": repeat.body_hash,
        "entry_retry_count": repeat.retry_count,
        "entry_answer": answer,
    }


async def remember(session: AsyncSession, repeat: Repeat, answer: JsonObject) -> Remembered:
    """Keep what this request answered, in the transaction that carried it out."""
    entry = Remembered(new_id(), answer)
    await rows(session, _REMEMBER_ONE_SQL, asked=to_json(entry_json(entry.id, repeat, answer)).decode())
    return entry


async def amend(session: AsyncSession, entry: Remembered, answer: JsonObject) -> None:
    """Put another answer in an entry's place, unless a repeat of the request has done so in the meantime."""
    await rows(
        session,
        """
        UPDATE idempotency_keys SET answer = CAST(:answer AS jsonb)
        WHERE id = :id AND answer = CAST(:before AS jsonb)
        """,
        id=entry.id,
        before=json.dumps(entry.answer),
        answer=json.dumps(answer),
    )


async def forget_old(session: AsyncSession) -> None:
    """Delete entries that no repeat can ask for any more."""
    await rows(
        session,
        "DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - make_interval(secs => :window)",
        window=KEY_WINDOW_SECONDS,
    )


def lock_number(repeat: Repeat) -> int:
    """The advisory lock of a request, which whoever looks for it or carries it out takes first."""
    return int.from_bytes(bytes.fromhex(repeat.fingerprint)[:8], signed=True)


async def _lock(session: AsyncSession, repeat: Repeat) -> None:
    await rows(session, "SELECT pg_advisory_xact_lock(:entry_lock)", entry_lock=lock_number(repeat))
