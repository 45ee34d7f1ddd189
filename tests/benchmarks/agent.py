"""An async agent as users have them: FastAPI and pydantic on uvicorn, as the agents' SDK serves it.

    python -m tests.benchmarks.agent --port 28100 --record requests.jsonl

It answers at once and records like `tests.support.acp_server`, the faster one: a bare aiohttp server.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from pydantic import AwareDatetime, BaseModel, JsonValue

from tests.support.acp_replies import JsonObject


class _Agent(BaseModel):
    id: str
    name: str
    acp_type: str
    description: str
    created_at: AwareDatetime
    updated_at: AwareDatetime


class _Task(BaseModel):
    id: str
    name: str | None
    status: str
    created_at: AwareDatetime
    updated_at: AwareDatetime
    params: JsonObject | None
    task_metadata: JsonObject | None


class _Event(BaseModel):
    id: str
    sequence_id: int
    task_id: str
    agent_id: str
    created_at: AwareDatetime
    content: JsonObject | None


class _Params(BaseModel):
    agent: _Agent
    task: _Task
    event: _Event | None = None


class _Call(BaseModel):
    jsonrpc: str
    id: str
    method: str
    params: _Params


class _Answer(BaseModel):
    jsonrpc: str = "2.0"
    id: str
    result: JsonValue = None


def create_agent(record: Path) -> FastAPI:
    """The agent, which appends each request to a file as `acp_server.read_record` reads it."""
    app = FastAPI()
    fd = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/api")
    async def api(call: _Call, request: Request) -> _Answer:
        entry = {
            "monotonic": time.monotonic(),
            "at": time.time(),
            "headers": dict(request.headers),
            "request": await request.json(),
        }
        os.write(fd, json.dumps(entry).encode() + b"\n")
        return _Answer(id=call.id)

    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    uvicorn.run(
        create_agent(options.record),
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
