"""Asking the Temporal workflow of a task, which an agent of Temporal type starts under the task's id.

WorkflowQueryFailedError      no such query, or its handler failed      BadRequest, with Temporal's words
RPCError NOT_FOUND            no workflow of this id                    NotFound
anything else, or no answer   Temporal is away, or no worker answers    Unavailable, after the time limit
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any, NoReturn

from temporalio.client import WorkflowQueryFailedError
from temporalio.common import RawValue
from temporalio.service import RPCError

from agentex.agents.models import AcpType, Agent
from agentex.database import storable
from agentex.errors import BadRequest, NotFound, Unavailable
from agentex.resources import Resources
from agentex.tasks.models import Task, TaskQueryResult
from agentex.telemetry.metrics import TEMPORAL_ERRORS
from agentex.temporal import is_gone

# As much as a body from outside may have; Temporal itself takes up to 2 MiB.
MAX_RESULT_BYTES = 1_048_576
# What Temporal says of a query that failed may be a stack.
_SHOWN_CHARACTERS = 500
_NULL, _JSON = b"binary/null", frozenset({b"json/plain", b"json/protobuf"})


async def query_workflow(resources: Resources, task: Task, agent: Agent, name: str) -> TaskQueryResult:
    """The query's answer; raises BadRequest, NotFound or Unavailable."""
    if agent.acp_type is AcpType.SYNC:
        raise BadRequest(
            f"agent {agent.name!r} is sync: only tasks of an agent of Temporal type have a workflow"
        )
    seconds = resources.settings.workflow_query_timeout_seconds
    handle = resources.temporal.client.get_workflow_handle(str(task.id))
    try:
        # The client's own limit does not hold for a connection that hangs while it is made.
        async with asyncio.timeout(seconds):
            raw = await handle.query(name, result_type=RawValue, rpc_timeout=timedelta(seconds=seconds))
    except WorkflowQueryFailedError as error:
        said = str(storable(str(error)))[:_SHOWN_CHARACTERS]
        raise BadRequest(f"query {name!r} of task {task.id} failed: {said}") from None
    except RPCError as error:
        if is_gone(error):
            raise NotFound(f"task {str(task.id)!r} has no workflow in Temporal") from None
        raise _no_answer(task, name) from error
    except (RuntimeError, TimeoutError) as error:
        # RuntimeError: the lazy client's first connection failed (sdk-python raises it untyped).
        raise _no_answer(task, name) from error
    return TaskQueryResult(task_id=task.id, query=name, result=_decoded(raw, task, name))


def _no_answer(task: Task, name: str) -> Unavailable:
    TEMPORAL_ERRORS.labels(call="query").inc()
    return Unavailable(
        f"query {name!r} of task {task.id}: Temporal, or the worker of its workflow, does not answer"
    )


def _decoded(raw: RawValue | None, task: Task, name: str) -> Any:
    """The JSON of a payload. Another encoding is for whoever has its key."""
    if raw is None:
        return None
    encoding, data = raw.payload.metadata.get("encoding", b""), raw.payload.data
    if encoding == _NULL:
        return None
    about = f"the result of query {name!r} of task {task.id}"
    if encoding not in _JSON:
        raise BadRequest(f"{about} is not JSON but {encoding[:80].decode('ascii', 'replace')!r}")
    if len(data) > MAX_RESULT_BYTES:
        raise BadRequest(f"{about} is larger than {MAX_RESULT_BYTES} bytes")
    try:
        return storable(json.loads(data, parse_constant=_no_json))
    except (ValueError, RecursionError):
        raise BadRequest(f"{about} is not JSON, or is nested too deep") from None


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
