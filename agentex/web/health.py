"""Health and metrics: is the process up, do Postgres and Temporal answer?"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from agentex.deps import ResourcesDep
from agentex.readiness import Readiness, readiness

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process is up."""

    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """The process is up, whatever it depends on."""
    return Health()


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Postgres or Temporal does not answer"}},
)
async def readyz(resources: ResourcesDep) -> JSONResponse:
    """Postgres and Temporal answer."""
    ready = await readiness(resources)
    return JSONResponse(ready.model_dump(exclude_none=True), ready.http_status)


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Metrics of this process, for Prometheus."""
    return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})
