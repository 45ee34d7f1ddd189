"""An agent's own answer on its way to the caller: in pieces as they arrive, while somebody reads them."""

from __future__ import annotations

import asyncio
import logging

from fastapi import Response
from starlette.types import Receive, Scope, Send

from agentex.acp.client import OwnAnswer
from agentex.errors import AgentCallFailed
from agentex.forward.headers import from_agent
from agentex.rpc.respond import ClientGone, while_connected

log = logging.getLogger(__name__)


class ForwardedAnswer(Response):
    """The status, the headers that go through, then the body; who reads slowly slows the agent down.

    deadline: in the event loop's time. What is not through by then, or breaks off at the agent, is cut off
    here too: without its end, so that nobody takes it for whole.
    """

    def __init__(self, answer: OwnAnswer, deadline: float) -> None:
        super().__init__(status_code=answer.status)
        headers = from_agent(answer.headers)
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._answer = answer
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it until it ends, the client goes away, or the time is over."""
        try:
            async with asyncio.timeout_at(self._deadline), while_connected(receive):
                await self._send(send)
        except ClientGone:
            return
        except (AgentCallFailed, TimeoutError) as failure:
            why = failure.message if isinstance(failure, AgentCallFailed) else "it took too long"
            log.warning("an answer of an agent was cut off", extra={"action": "forward.cut", "why": why})
        finally:
            self._answer.close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        while chunk := await self._answer.chunk():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
