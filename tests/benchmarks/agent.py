"""An agent as users have them: FastAPI and pydantic on uvicorn, as the agents' SDK serves it.

    python -m tests.benchmarks.agent --port 28100 --record requests.jsonl

It answers at once, a message/send with a stream of one text, and records like `tests.support.acp_server`,
the faster one: a bare aiohttp server.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
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


class _Text(BaseModel):
    type: Literal["text"] = "text"
    author: Literal["user", "agent"]
    style: Literal["static", "active"] = "static"
    format: Literal["markdown", "plain", "code"] = "plain"
    content: str
    attachments: list[JsonObject] | None = None


class _Params(BaseModel):
    agent: _Agent
    task: _Task
    event: _Event | None = None
    content: _Text | None = None
    stream: bool = False


class _Call(BaseModel):
    jsonrpc: str
    id: str
    method: str
    params: _Params


class _Answer(BaseModel):
    jsonrpc: str = "2.0"
    id: str
    result: JsonValue = None


class _Full(BaseModel):
    type: Literal["full"] = "full"
    index: int
    content: _Text
    parent_task_message: None = None


async def _answer_lines(call: _Call, content: _Text) -> AsyncGenerator[str]:
    update = _Full(index=0, content=_Text(author="agent", content=f"You said: {content.content}"))
    answer = _Answer(id=call.id, result=update.model_dump(mode="json"))
    yield f"{answer.model_dump_json()}\n"


def create_agent(record: Path) -> FastAPI:
    """The agent, which appends each request to a file as `acp_server.read_record` reads it."""
    app = FastAPI()
    fd = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/api", response_model=_Answer)
    async def api(call: _Call, request: Request) -> _Answer | Response:
        entry = {
            "monotonic": time.monotonic(),
            "at": time.time(),
            "headers": dict(request.headers),
            "request": await request.json(),
        }
        os.write(fd, json.dumps(entry).encode() + b"\n")
        if call.params.content is not None:
            lines = _answer_lines(call, call.params.content)
            return StreamingResponse(lines, media_type="application/x-ndjson")
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
        # The agents' SDK asks for uvicorn without its extras: no uvloop, no httptools.
        loop="asyncio",
        http="h11",
    )


if __name__ == "__main__":
    main()
