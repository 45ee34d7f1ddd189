"""A demo agent of type async: acknowledges an event at once and posts its answer as a message.

python -m agentex.dev.agents.echo_async --port 8101 --server http://127.0.0.1:5003 --name demo-async
"""

from __future__ import annotations

from collections import OrderedDict

from aiohttp import web

from agentex.dev.agents.base import JSON, Call, DemoAgent, Method, Options, read_options, serve

# The server may send an event again after a 5xx, with the same id; this many are remembered to answer once.
_REMEMBERED_EVENTS = 10_000


class EchoAsync:
    """Answers each event once, by its id."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()

    def methods(self) -> dict[str, Method]:
        """The ACP methods of an async agent."""
        return {
            "task/create": self.create_task,
            "event/send": self.send_event,
            "task/cancel": self.acknowledge,
            "task/interrupt": self.acknowledge,
        }

    async def create_task(self, call: Call) -> web.StreamResponse:
        """Nothing to prepare."""
        return web.json_response(call.result(None))

    async def acknowledge(self, call: Call) -> web.StreamResponse:
        """Nothing runs long enough to be cancelled."""
        return web.json_response(call.result({"status": "processing"}))

    async def send_event(self, call: Call) -> web.StreamResponse:
        """Acknowledge; the answer follows as POST /messages."""
        event: JSON = call.params["event"]
        if self._is_new(str(event["id"])):
            call.agent.in_background(self._answer(call.agent, event))
        return await self.acknowledge(call)

    def _is_new(self, event_id: str) -> bool:
        if event_id in self._seen:
            return False
        self._seen[event_id] = None
        if len(self._seen) > _REMEMBERED_EVENTS:
            self._seen.popitem(last=False)
        return True

    async def _answer(self, agent: DemoAgent, event: JSON) -> None:
        content: JSON = event.get("content") or {}
        answer = {"type": "text", "author": "agent", "content": f"You said: {content.get('content')}"}
        await agent.post("/messages", {"task_id": event["task_id"], "content": answer})


def build(options: Options) -> DemoAgent:
    """The agent, not yet serving."""
    return DemoAgent(options, "async", "Echoes what it is told, as a message", EchoAsync().methods())


if __name__ == "__main__":
    serve(build(read_options()))
