"""/states: what an agent keeps of a task between two of its turns."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from agentex.deps import Caller, Limit, PageNumber, ReadSession, RepeatDep, ResourcesDep
from agentex.pagination import OrderDirection
from agentex.states import service
from agentex.states.models import StateCreate, StateOrder, StateRead, StateUpdate

router = APIRouter(prefix="/states", tags=["states"])


@router.post("")
async def create_state(
    body: StateCreate, resources: ResourcesDep, caller: Caller, repeat: RepeatDep
) -> StateRead:
    """Make an agent's state in a task; there is one of each agent in each task."""
    return await service.create(resources, caller, body, repeat)


@router.get("")
async def list_states(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    *,
    task_id: Annotated[UUID | None, Query(description="Only of this task")] = None,
    agent_id: Annotated[UUID | None, Query(description="Only of this agent")] = None,
    limit: Limit = 50,
    page_number: PageNumber = 1,
    order_by: StateOrder = StateOrder.CREATED_AT,
    order_direction: OrderDirection = OrderDirection.DESC,
) -> list[StateRead]:
    """States, newest first; of one task and one agent there is one at most."""
    wanted, part = (
        service.StateFilter(task_id, agent_id),
        service.ListOptions(limit, page_number, order_direction),
    )
    found = await service.list_page(session, resources, caller, wanted, part)
    return [StateRead.model_validate(state) for state in found]


@router.get("/{state_id}")
async def get_state(
    state_id: str, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> StateRead:
    """One state."""
    return await service.get(session, resources, caller, state_id)


@router.put("/{state_id}")
async def update_state(
    state_id: str, body: StateUpdate, resources: ResourcesDep, caller: Caller
) -> StateRead:
    """Replace a state as a whole."""
    return await service.replace(resources, caller, state_id, body)


@router.delete("/{state_id}")
async def delete_state(state_id: str, resources: ResourcesDep, caller: Caller) -> StateRead:
    """Delete a state; the answer is what it was."""
    return await service.delete(resources, caller, state_id)
