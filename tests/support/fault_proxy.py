"""A server's side of an idle connection that is closing, made certain instead of a matter of a millisecond.

async with ClosingProxy("127.0.0.1", agent_port, idle_seconds=4.5) as proxy:
    ...  # register proxy.url as the agent's acp_url
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class ClosingProxy:
    """Passes bytes on to a server; a request on a connection idle for so long meets a close, unread.

    Idle since the last byte either way, as a server counts: a slow answer is no idleness.
    """

    def __init__(self, host: str, port: int, *, idle_seconds: float) -> None:
        self.closed = 0
        self.connections = 0
        self._target = (host, port)
        self._idle_seconds = idle_seconds
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None, "not entered"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> ClosingProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait({task})

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        used = _LastUse()
        back = asyncio.create_task(_copy(back_reader, writer, used))
        try:
            while chunk := await reader.read(65_536):
                if used.seconds_ago() > self._idle_seconds:
                    self.closed += 1
                    return
                used.now()
                back_writer.write(chunk)
        except ConnectionError:
            return
        finally:
            back.cancel()
            back_writer.close()
            writer.close()


class _LastUse:
    """When a connection carried a byte last."""

    def __init__(self) -> None:
        self.now()

    def now(self) -> None:
        self._at = asyncio.get_running_loop().time()

    def seconds_ago(self) -> float:
        return asyncio.get_running_loop().time() - self._at


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, used: _LastUse) -> None:
    while chunk := await reader.read(65_536):
        used.now()
        writer.write(chunk)
