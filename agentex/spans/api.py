"""/spans: what agents did, as their tracing tells it."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query

from agentex.deps import Caller, Limit, PageNumber, ReadSession, ResourcesDep
from agentex.spans import service
from agentex.spans.models import ID_CHARACTERS, SpanCreate, SpanOrder, SpanRead, SpanUpdate

router = APIRouter(prefix="/spans", tags=["spans"])

SpanIdInPath = Annotated[str, Path(description="The span, by the id that its maker chose")]


@router.post("")
async def create_span(body: SpanCreate, resources: ResourcesDep, caller: Caller) -> SpanRead:
    """Take a span in; a repeat with the same id is the same span."""
    return await service.add(resources, caller, body)


@router.get("")
async def list_spans(
    session: ReadSession,
    resources: ResourcesDep,
    caller: Caller,
    trace_id: Annotated[
        str | None, Query(max_length=ID_CHARACTERS, description="Only spans of this trace")
    ] = None,
    task_id: Annotated[UUID | None, Query(description="Only spans of this task")] = None,
    order_by: Annotated[SpanOrder, Query(description="What they are ordered by")] = SpanOrder.START_TIME,
    order_direction: Annotated[Literal["asc", "desc"], Query(description="Which end comes first")] = "desc",
    limit: Limit = 50,
    page_number: PageNumber = 1,
) -> list[SpanRead]:
    """Spans, the latest start first."""
    found = await service.list_page(
        session,
        resources,
        caller,
        service.SpanFilter(trace_id, task_id),
        direction=order_direction,
        limit=limit,
        page_number=page_number,
    )
    return [SpanRead.model_validate(span) for span in found]


@router.get("/{span_id:path}")
async def get_span(
    span_id: SpanIdInPath, session: ReadSession, resources: ResourcesDep, caller: Caller
) -> SpanRead:
    """One span."""
    return SpanRead.model_validate(await service.get(session, resources, caller, span_id))


@router.patch("/{span_id:path}")
async def update_span(
    span_id: SpanIdInPath, body: SpanUpdate, resources: ResourcesDep, caller: Caller
) -> SpanRead:
    """Change what is given, e.g. its end and its output."""
    return SpanRead.model_validate(await service.change(resources, caller, span_id, body))
