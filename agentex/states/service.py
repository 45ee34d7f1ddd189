"""States: make, find, list, replace, delete.

A write is one statement, and proves its task alive (`Hooks.sign_of_life`): states are an agent's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from sqlalchemy import RowMapping
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import Operation, ResourceType, hidden_as, require
from agentex.auth.lists import seen_through_tasks
from agentex.auth.principal import Principal
from agentex.auth.tasks import require_task, task_not_found, task_ref
from agentex.database import JsonObject, rows
from agentex.errors import AgentexError, AlreadyExists, NotFound, PayloadTooLarge
from agentex.idempotency import REPEAT_WINDOW_SECONDS, Repeat, find_entry, remember
from agentex.ids import new_id, parse_id
from agentex.pagination import OrderDirection, not_of_deleted_task
from agentex.resources import Resources
from agentex.states.models import State, StateCreate, StateRead, StateUpdate


@dataclass(frozen=True)
class StateFilter:
    """Which states a list has; None does not filter."""

    task_id: UUID | None = None
    agent_id: UUID | None = None


@dataclass(frozen=True)
class ListOptions:
    """Which part of a list, and which end first; pages count from 1."""

    limit: int = 50
    page_number: int = 1
    direction: OrderDirection = OrderDirection.DESC


async def create(resources: Resources, principal: Principal, body: StateCreate, repeat: Repeat) -> StateRead:
    """The agent's state in this task; raises AlreadyExists for one that this request has not made."""
    text = _state_text(resources, body.state)
    async with resources.db.single() as session:
        await require_task(session, resources.authz, principal, Operation.UPDATE, body.task_id)
        if repeat.key is None:
            made = await _insert(session, resources, principal, body, text)
            if made is None and repeat.may_be_one:
                made = await _made_before(session, principal, body, text)
            if made is None:
                raise await _not_made(session, principal, body)
            return made
    async with resources.db.begin() as session:
        entry = await find_entry(session, repeat)
        if entry is not None:
            found = await _find(session, principal, _GET_SQL, cast("str", entry.answer["state"]))
            return _read(found, json.loads(found["state"]))
        made = await _insert(session, resources, principal, body, text)
        if made is None:
            raise await _not_made(session, principal, body)
        await remember(session, repeat, {"state": str(made.id)})
    return made


async def _insert(
    session: AsyncSession, resources: Resources, principal: Principal, body: StateCreate, text: str
) -> StateRead | None:
    made = await rows(
        session,
        resources.hooks.sign_of_life(_INSERT_SQL),
        id=new_id(),
        state=text,
        task_id=body.task_id,
        agent_id=body.agent_id,
        account_id=principal.account_id,
    )
    return _read(made[0], body.state) if made else None


async def _made_before(
    session: AsyncSession, principal: Principal, body: StateCreate, text: str
) -> StateRead | None:
    """The state, if the original of a silent repeat may have made it: it is the same, and as young."""
    found = await rows(
        session,
        """
        SELECT id, task_id, agent_id, created_at, updated_at FROM states
        WHERE task_id = :task_id AND agent_id = :agent_id AND account_id = :account_id
            AND state = CAST(:state AS jsonb)
            AND created_at > clock_timestamp() - make_interval(secs => :window)
        """,
        task_id=body.task_id,
        agent_id=body.agent_id,
        account_id=principal.account_id,
        state=text,
        window=REPEAT_WINDOW_SECONDS,
    )
    return _read(found[0], body.state) if found else None


async def get(session: AsyncSession, resources: Resources, principal: Principal, state_id: str) -> StateRead:
    """One state, for those who may read its task."""
    found = await _find(session, principal, _GET_SQL, state_id)
    await _require(session, resources, principal, Operation.READ, found)
    return _read(found, json.loads(found["state"]))


async def list_page(
    session: AsyncSession, resources: Resources, principal: Principal, wanted: StateFilter, part: ListOptions
) -> list[State]:
    """States of the account; of one task, for those who may read that."""
    statement = select(State).where(col(State.account_id) == principal.account_id)
    statement = statement.where(not_of_deleted_task(col(State.task_id)))
    if wanted.task_id is None:
        seen = await resources.authz.visible(session, principal, ResourceType.TASK)
        statement = statement.where(seen_through_tasks(seen, "states.task_id"))
    else:
        await require_task(session, resources.authz, principal, Operation.READ, wanted.task_id)
        statement = statement.where(col(State.task_id) == wanted.task_id)
    if wanted.agent_id is not None:
        statement = statement.where(col(State.agent_id) == wanted.agent_id)
    ascending = part.direction is OrderDirection.ASC
    key = (col(State.created_at), col(State.id))
    statement = statement.order_by(*[column.asc() if ascending else column.desc() for column in key])
    statement = statement.limit(part.limit).offset((part.page_number - 1) * part.limit)
    return list((await session.exec(statement)).all())


async def replace(resources: Resources, principal: Principal, state_id: str, body: StateUpdate) -> StateRead:
    """The state as it is from now on; where the body says whose it is, it must be theirs."""
    text = _state_text(resources, body.state)
    async with resources.db.single() as session:
        found = await _find(session, principal, _OWNER_SQL, state_id)
        await _require(session, resources, principal, Operation.UPDATE, found)
        for name, given in (("task", body.task_id), ("agent", body.agent_id)):
            if given is not None and given != found[f"{name}_id"]:
                raise NotFound(f"state {state_id!r} not found for {name} {str(given)!r}")
        written = await rows(
            session,
            resources.hooks.sign_of_life(_UPDATE_SQL),
            id=found["id"],
            state=text,
            account_id=principal.account_id,
        )
    if not written:
        raise _not_found(state_id)
    return _read(written[0], body.state)


async def delete(resources: Resources, principal: Principal, state_id: str) -> StateRead:
    """Delete a state and return what it was; its agent may make a new one."""
    async with resources.db.single() as session:
        found = await _find(session, principal, _OWNER_SQL, state_id)
        await _require(session, resources, principal, Operation.UPDATE, found)
        deleted = await rows(session, _DELETE_SQL, id=found["id"], account_id=principal.account_id)
    if not deleted:
        raise _not_found(state_id)
    return _read(deleted[0], json.loads(deleted[0]["state"]))


_GET_SQL = """
    SELECT s.id, s.task_id, s.agent_id, s.state::text AS state, s.created_at, s.updated_at, t.owner
    FROM states s JOIN tasks t ON t.id = s.task_id
    WHERE s.id = :id AND s.account_id = :account_id AND t.status <> 'DELETED'
"""
# For a write: without the state, which may be a megabyte.
_OWNER_SQL = """
    SELECT s.id, s.task_id, s.agent_id, t.owner
    FROM states s JOIN tasks t ON t.id = s.task_id
    WHERE s.id = :id AND s.account_id = :account_id AND t.status <> 'DELETED'
"""
# KEY SHARE as in messages: a task that is being forgotten is not found, rather than a violation.
_INSERT_SQL = """
    INSERT INTO states (id, account_id, task_id, agent_id, state, created_at, updated_at)
    SELECT :id, t.account_id, t.id, a.id, CAST(:state AS jsonb), now(), now()
    FROM (SELECT id, account_id FROM tasks WHERE id = :task_id AND account_id = :account_id
            FOR KEY SHARE) t
        JOIN agents a ON a.id = :agent_id AND a.account_id = t.account_id
    ON CONFLICT ON CONSTRAINT uq_states_task_id_agent_id DO NOTHING
    RETURNING id, task_id, agent_id, created_at, updated_at
"""
_UPDATE_SQL = """
    UPDATE states SET state = CAST(:state AS jsonb), updated_at = now()
    WHERE id = :id AND account_id = :account_id
    RETURNING id, task_id, agent_id, created_at, updated_at
"""
_DELETE_SQL = """
    DELETE FROM states WHERE id = :id AND account_id = :account_id
    RETURNING id, task_id, agent_id, state::text AS state, created_at, updated_at
"""


def _state_text(resources: Resources, state: JsonObject) -> str:
    """The state as it is stored; raises PayloadTooLarge."""
    text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
    size, limit = len(text.encode()), resources.settings.max_state_bytes
    if size > limit:
        raise PayloadTooLarge(
            f"state is {size} bytes of JSON; a state has at most {limit} bytes (AGENTEX_MAX_STATE_BYTES)"
        )
    return text


async def _find(session: AsyncSession, principal: Principal, sql: str, state_id: str) -> RowMapping:
    found = await rows(session, sql, id=parse_id(state_id, "state"), account_id=principal.account_id)
    if not found:
        raise _not_found(state_id)
    return found[0]


async def _require(
    session: AsyncSession, resources: Resources, principal: Principal, operation: Operation, state: RowMapping
) -> None:
    """Whether that may be done to the task of the state, which was found with its task's owner."""
    task = task_ref(principal, state["task_id"], state["owner"])
    with hidden_as(_not_found(str(state["id"]))):
        await require(resources.authz, session, principal, operation, task)


async def _not_made(session: AsyncSession, principal: Principal, body: StateCreate) -> AgentexError:
    """Why a state was not made: its task or agent is not there, or the state is."""
    found = await rows(
        session,
        """
        SELECT EXISTS (SELECT 1 FROM tasks WHERE id = :task_id AND account_id = :account_id) AS task,
            EXISTS (SELECT 1 FROM agents WHERE id = :agent_id AND account_id = :account_id) AS agent,
            (SELECT id FROM states WHERE task_id = :task_id AND agent_id = :agent_id) AS state
        """,
        task_id=body.task_id,
        agent_id=body.agent_id,
        account_id=principal.account_id,
    )
    if not found[0]["task"]:
        return task_not_found(body.task_id)
    if not found[0]["agent"]:
        return NotFound(f"agent {str(body.agent_id)!r} not found")
    message = (
        f"agent {body.agent_id} has a state in task {body.task_id} already: {found[0]['state']}; update it"
    )
    return AlreadyExists(message)


def _not_found(state_id: str) -> NotFound:
    return NotFound(f"state {state_id!r} not found")


def _read(row: RowMapping, state: JsonObject) -> StateRead:
    return StateRead.model_validate({**row, "state": state})
