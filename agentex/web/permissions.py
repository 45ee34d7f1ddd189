"""What each route asks of its caller, by the operations of auth/rules.py.

Shown in the OpenAPI document as x-agentex-permissions. A test walks the routes and compares with what they
ask; a route that is not named here fails it. Of several operations not all may be needed: that depends on the
request, and a route of /grants asks for those of the type that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SHARED = "agent task schedule run"
_GRANTED = "read update delete execute cancel"

# By what is needed, the routes that need it.
_ROUTES: Mapping[str, Sequence[str]] = {
    "agent.create agent.update": (
        "POST /agents/register",
        "POST /agents/register-build",
    ),
    "agent.execute": (
        "DELETE /agents/forward/name/{agent_name}/{path}",
        "GET /agents/forward/name/{agent_name}/{path}",
        "PATCH /agents/forward/name/{agent_name}/{path}",
        "POST /agents/forward/name/{agent_name}/{path}",
        "PUT /agents/forward/name/{agent_name}/{path}",
    ),
    "agent.read": (
        "GET /agents",
        "GET /agents/name/{name}",
        "GET /agents/{agent_id}",
        "GET /agents/{agent_id}/deployments",
        "GET /agents/{agent_id}/deployments/{deployment_id}",
        "GET /deployment-history",
        "GET /deployment-history/{history_id}",
    ),
    "agent.read agent.delete": (
        "DELETE /agents/name/{name}",
        "DELETE /agents/{agent_id}",
    ),
    "agent.read agent.execute task.create schedule.update": (
        "POST /agents/{agent_id}/schedules/name/{name}/transfer",
        "POST /agents/{agent_id}/schedules/{schedule_id}/transfer",
    ),
    "agent.read agent.execute task.create task.read task.update task.cancel": (
        "POST /agents/name/{name}/rpc",
        "POST /agents/{agent_id}/deployments/{deployment_id}/rpc",
        "POST /agents/{agent_id}/rpc",
    ),
    "agent.read agent.update": (
        "POST /agent_api_keys",
        "POST /agent_api_keys/webhook-trigger",
        "POST /agents/{agent_id}/deployments",
        "DELETE /agents/{agent_id}/deployments/{deployment_id}",
        "POST /agents/{agent_id}/deployments/{deployment_id}/promote",
        "POST /agents/{agent_id}/schedules",
    ),
    "agent.read agent.update agent.execute": ("POST /agents/{agent_id}/transfer",),
    "agent.read api_key.read": (
        "GET /agent_api_keys",
        "GET /agent_api_keys/name/{name}",
    ),
    "agent.read api_key.read api_key.delete": ("DELETE /agent_api_keys/name/{name}",),
    "agent.read schedule.delete": (
        "DELETE /agents/{agent_id}/schedules/name/{name}",
        "DELETE /agents/{agent_id}/schedules/{schedule_id}",
    ),
    "agent.read schedule.execute": (
        "POST /agents/{agent_id}/schedules/name/{name}/trigger",
        "POST /agents/{agent_id}/schedules/{schedule_id}/trigger",
    ),
    "agent.read schedule.read": (
        "GET /agents/{agent_id}/schedules",
        "GET /agents/{agent_id}/schedules/name/{name}",
        "GET /agents/{agent_id}/schedules/{schedule_id}",
    ),
    "agent.read schedule.read run.read": (
        "GET /agents/{agent_id}/schedules/name/{name}/runs",
        "GET /agents/{agent_id}/schedules/{schedule_id}/runs",
    ),
    "agent.read schedule.update": (
        "PATCH /agents/{agent_id}/schedules/name/{name}",
        "POST /agents/{agent_id}/schedules/name/{name}/pause",
        "POST /agents/{agent_id}/schedules/name/{name}/resume",
        "POST /agents/{agent_id}/schedules/name/{name}/skip",
        "POST /agents/{agent_id}/schedules/name/{name}/unskip",
        "PATCH /agents/{agent_id}/schedules/{schedule_id}",
        "POST /agents/{agent_id}/schedules/{schedule_id}/pause",
        "POST /agents/{agent_id}/schedules/{schedule_id}/resume",
        "POST /agents/{agent_id}/schedules/{schedule_id}/skip",
        "POST /agents/{agent_id}/schedules/{schedule_id}/unskip",
    ),
    "api_key.read": (
        "GET /agent_api_keys/{key_id}",
        "GET /api_keys",
        "GET /api_keys/{api_key_id}",
    ),
    "api_key.read api_key.delete": (
        "DELETE /agent_api_keys/{key_id}",
        "DELETE /api_keys/{api_key_id}",
    ),
    "api_key.create member.update": ("POST /api_keys",),
    "api_key.read api_key.update": ("POST /api_keys/{api_key_id}/rotate",),
    "audit.read": ("GET /audit",),
    "member.delete": ("DELETE /members/{member}",),
    "member.read": (
        "GET /members",
        "GET /members/{member}",
    ),
    "member.update": ("PUT /members/{member}",),
    "run.read": (
        "GET /runs",
        "GET /runs/{run_id}",
    ),
    "run.read run.cancel": ("POST /runs/{run_id}/cancel",),
    "task.create task.read task.update": (
        "POST /checkpoints/delete-thread",
        "POST /checkpoints/put",
        "POST /checkpoints/put-writes",
        "PATCH /spans/{span_id}",
    ),
    "task.create task.update": ("POST /spans",),
    "task.read": (
        "POST /checkpoints/get-tuple",
        "POST /checkpoints/list",
        "GET /events",
        "GET /events/{event_id}",
        "GET /messages",
        "GET /messages/paginated",
        "GET /messages/{message_id}",
        "GET /spans",
        "GET /spans/{span_id}",
        "GET /states",
        "GET /states/{state_id}",
        "GET /tasks",
        "GET /tasks/name/{name}",
        "GET /tasks/name/{name}/stream",
        "GET /tasks/{task_id}",
        "GET /tasks/{task_id}/export",
        "GET /tasks/{task_id}/query/{query_name}",
        "GET /tasks/{task_id}/stream",
        "GET /tracker",
        "GET /tracker/{tracker_id}",
    ),
    "task.read task.cancel": ("POST /tasks/{task_id}/cancel",),
    "task.read task.delete": (
        "DELETE /tasks/name/{name}",
        "DELETE /tasks/{task_id}",
        "POST /tasks/{task_id}/clean",
    ),
    "task.read task.update": (
        "PUT /tasks/name/{name}",
        "PUT /tasks/{task_id}",
        "POST /tasks/{task_id}/complete",
        "POST /tasks/{task_id}/fail",
        "POST /tasks/{task_id}/interrupt",
        "POST /tasks/{task_id}/rehydrate",
        "POST /tasks/{task_id}/terminate",
        "POST /tasks/{task_id}/timeout",
    ),
    "task.update": (
        "POST /messages",
        "POST /messages/batch",
        "PUT /messages/batch",
        "PUT /messages/{message_id}",
        "POST /states",
        "DELETE /states/{state_id}",
        "PUT /states/{state_id}",
        "PUT /tracker/{tracker_id}",
    ),
}


def _of_grants(operations: str) -> tuple[str, ...]:
    return tuple(f"{kind}.{operation}" for kind in _SHARED.split() for operation in operations.split())


PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    **{route: tuple(needed.split()) for needed, routes in _ROUTES.items() for route in routes},
    # No more can be shared than one has.
    "POST /grants": _of_grants(_GRANTED),
    "GET /grants": _of_grants("read update delete"),
    "DELETE /grants/{grant_id}": _of_grants("read update delete"),
}

# What everybody may ask, and learns nothing of anybody else from.
OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/whoami"})
