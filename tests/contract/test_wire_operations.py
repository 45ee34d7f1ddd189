"""Every operation of the wire contract is in openapi.yaml; leaving one out breaks clients that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

AGENT = "/agents/{}"
SCHEDULES = f"{AGENT}/schedules"
ROOT = Path(__file__).parents[2]

# Methods and paths as clients call them; which names the parameters have does not matter to them.
OPERATIONS = [
    "POST /agents/register",
    "POST /agents/register-build",
    *(f"{method} {path}" for path in (AGENT, "/agents/name/{}") for method in ("GET", "DELETE")),
    "GET /agents",
    f"POST {AGENT}/rpc",
    "POST /agents/name/{}/rpc",
    *(f"{method} {AGENT}/deployments" for method in ("POST", "GET")),
    *(f"{method} {AGENT}/deployments/{{}}" for method in ("GET", "DELETE")),
    f"POST {AGENT}/deployments/{{}}/rpc",
    f"POST {AGENT}/deployments/{{}}/promote",
    *(f"{method} /agents/forward/name/{{}}/{{}}" for method in ("GET", "POST")),
    "POST /agent_api_keys/webhook-trigger",
    "GET /deployment-history",
    "GET /deployment-history/{}",
    "GET /tasks",
    *(f"{method} {path}" for path in ("/tasks/{}", "/tasks/name/{}") for method in ("GET", "PUT", "DELETE")),
    *(
        f"POST /tasks/{{}}/{verb}"
        for verb in ("cancel", "complete", "fail", "terminate", "timeout", "interrupt")
    ),
    *(f"GET {path}/stream" for path in ("/tasks/{}", "/tasks/name/{}")),
    "GET /tasks/{}/query/{}",
    *(f"{method} /messages" for method in ("POST", "GET")),
    *(f"{method} /messages/{{}}" for method in ("PUT", "GET")),
    "GET /messages/paginated",
    *(f"{method} /messages/batch" for method in ("POST", "PUT")),
    *(f"{method} /states" for method in ("POST", "GET")),
    *(f"{method} /states/{{}}" for method in ("GET", "PUT", "DELETE")),
    "GET /events",
    "GET /events/{}",
    *(f"{method} /spans" for method in ("POST", "GET")),
    *(f"{method} /spans/{{}}" for method in ("GET", "PATCH")),
    "GET /tracker",
    *(f"{method} /tracker/{{}}" for method in ("GET", "PUT")),
    *(
        f"POST /checkpoints/{action}"
        for action in ("get-tuple", "put", "put-writes", "list", "delete-thread")
    ),
    *(f"{method} {SCHEDULES}" for method in ("POST", "GET")),
    *(f"{method} {SCHEDULES}{path}" for path in ("/{}", "/name/{}") for method in ("GET", "PATCH", "DELETE")),
    *(
        f"POST {SCHEDULES}{path}/{action}"
        for path in ("/{}", "/name/{}")
        for action in ("pause", "resume", "trigger", "skip", "unskip")
    ),
]


def spelled(path: str) -> str:
    """A path with its parameters' names left out."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


@pytest.fixture(scope="module")
def documented() -> set[str]:
    """Every operation of openapi.yaml."""
    document = yaml.load((ROOT / "openapi.yaml").read_text(), yaml.CSafeLoader)
    return {
        f"{method.upper()} {spelled(path)}"
        for path, operations in document["paths"].items()
        for method in operations
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_openapi_has_the_operation(operation: str, documented: set[str]) -> None:
    assert operation in documented
