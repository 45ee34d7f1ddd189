"""A demo agent of type sync: streams its answer as NDJSON, word by word.

python -m agentex.dev.agents.echo_sync --port 8102 --server http://127.0.0.1:5003 --name demo-sync
"""

from __future__ import annotations

import json

from aiohttp import web

from agentex.dev.agents.base import JSON, Call, DemoAgent, Method, Options, read_options, serve


async def create_task(call: Call) -> web.StreamResponse:
    """Nothing to prepare."""
    return web.json_response(call.result(None))


async def send_message(call: Call) -> web.StreamResponse:
    """Answer with lines of start, delta and done."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(call.request)
    content: JSON = call.params.get("content") or {}
    for update in _updates(f"You said: {content.get('content')}"):
        await response.write(json.dumps(call.result(update)).encode() + b"\n")
    await response.write_eof()
    return response


def _updates(text: str) -> list[JSON]:
    shared: JSON = {"index": 0, "parent_task_message": None}
    empty = {"type": "text", "author": "agent", "style": "static", "format": "plain", "content": ""}
    words = text.split(" ")
    pieces = [word if number == 0 else f" {word}" for number, word in enumerate(words)]
    deltas: list[JSON] = [
        {"type": "delta", "delta": {"type": "text", "text_delta": piece}} for piece in pieces
    ]
    lines: list[JSON] = [{"type": "start", "content": empty}, *deltas, {"type": "done"}]
    return [{**line, **shared} for line in lines]


def build(options: Options) -> DemoAgent:
    """The agent, not yet serving."""
    methods: dict[str, Method] = {"task/create": create_task, "message/send": send_message}
    return DemoAgent(options, "sync", "Echoes what it is told, as a streamed answer", methods)


if __name__ == "__main__":
    serve(build(read_options()))
