"""The client under test, called in the same words whether it is the sync or the async one.

    agent = await api.agents.retrieve(agent_id)
    async for update in each(await api.agents.send_message_stream(agent_id=agent.id, params=params)):

Every call is remembered by its name ("agents.retrieve"), every HTTP request with its answer.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from contextlib import asynccontextmanager

import httpx
from agentex._resource import AsyncAPIResource, SyncAPIResource
from agentex.types import Agent, Task

from agentex import Agentex, AsyncAgentex

TEXT = {"type": "text", "author": "user", "content": "hi"}
# What the server makes of it.
WHOLE_TEXT = {**TEXT, "style": "static", "format": "plain", "attachments": None}
RESOURCES = (SyncAPIResource, AsyncAPIResource)
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


class Api:
    """One client, and what it was asked."""

    def __init__(self, mode, base_url, agent_url, **options):
        self.mode = mode
        self.agent_url = agent_url
        self.called = set()
        self.requests = []
        # Whatever does not fit the models raises, rather than passing as it came.
        options = {"base_url": base_url, "api_key": "k", "_strict_response_validation": True, **options}
        if mode == "sync":
            hooks = {"response": [self._remember]}
            self.client = Agentex(http_client=httpx.Client(event_hooks=hooks, timeout=60), **options)
        else:
            hooks = {"response": [self._remember_async]}
            self.client = AsyncAgentex(
                http_client=httpx.AsyncClient(event_hooks=hooks, timeout=60), **options
            )

    def __getattr__(self, name):
        return Call(self, getattr(self.client, name), name)

    def _remember(self, response):
        request = response.request
        self.requests.append((request.method, request.url.path, response.status_code, request, response))

    async def _remember_async(self, response):
        self._remember(response)

    async def close(self):
        await settle(self.client.close())

    async def agent(self, acp_type="async", **changes):
        """A registered agent with a name of its own, behind which the scripted agent stands."""
        body = {
            "name": fresh("agent"),
            "description": "answers",
            "acp_url": self.agent_url,
            "acp_type": acp_type,
            **changes,
        }
        return await settle(self.client.post("/agents/register", body=body, cast_to=Agent))

    async def task(self, agent=None, **params):
        """A task of an agent (of a new one without)."""
        agent = agent or await self.agent()
        params = {"name": fresh("task"), **params}
        answer = await self.agents.create_task(agent_id=agent.id, params=params)
        assert isinstance(answer.result, Task), answer
        return answer.result


class Call:
    """A resource or a method of the client by its name."""

    def __init__(self, api, target, name):
        self._api, self._target, self._name = api, target, name

    def __getattr__(self, name):
        return Call(self._api, getattr(self._target, name), f"{self._name}.{name}")

    async def __call__(self, *arguments, **options):
        self._api.called.add(self._name)
        return await settle(self._target(*arguments, **options))


async def settle(result):
    """What a method of either client returns."""
    return await result if inspect.isawaitable(result) else result


# Streams of the check that runs. One that is left to the garbage collector is closed whenever that comes, the
# sync client's perhaps in the middle of another request of the same thread, which then waits for itself.
_open = []


async def close_streams():
    """Close what a check has begun to read."""
    while _open:
        await settle(_open.pop().close())


async def each(items):
    """The items of a sync or an async iterable."""
    if hasattr(items, "close"):
        _open.append(items)
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        # In a thread, so that a check whose time is over is left, whatever it waits for.
        waiting, end = iter(items), object()
        while (item := await asyncio.to_thread(next, waiting, end)) is not end:
            yield item


@asynccontextmanager
async def opened(context):
    """A sync or an async context manager."""
    if hasattr(context, "__aenter__"):
        async with context as value:
            yield value
    else:
        with context as value:
            yield value


async def until(condition, what, seconds=30):
    """Poll until the condition holds; returns what it returned."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (found := await condition()):
        assert loop.time() < deadline, f"{what} did not happen within {seconds} s"
        await asyncio.sleep(0.1)
    return found


def fresh(word):
    """A name that nobody has."""
    return f"{word}-{uuid.uuid4().hex[:12]}"


def has(model, **expected):
    """Compare these fields of a model, all at once."""
    actual = {name: plain(getattr(model, name)) for name in expected}
    assert actual == expected, f"{type(model).__name__}: {actual} is not {expected}"


def plain(value):
    """Models as what they say in JSON; everything else as it is."""
    if hasattr(value, "to_dict"):
        return value.to_dict(exclude_unset=False, mode="json")
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


async def raises(kind, awaitable):
    """The typed error that a call raises; another class, a base or none fails."""
    try:
        result = await awaitable
    except kind as error:
        if type(error) is kind:
            return error
        raise
    raise AssertionError(f"{result!r} came instead of {kind.__name__}")


def methods(client):
    """The names of all methods of all resources, found by looking at the client."""
    names = set()
    for name in dir(type(client)):
        if name.startswith(("_", "with_")):
            continue
        if inspect.isfunction(inspect.getattr_static(type(client), name)):
            if isinstance(client, RESOURCES):
                names.add(name)
        elif isinstance(resource := getattr(client, name), RESOURCES):
            names |= {f"{name}.{inner}" for inner in methods(resource)}
    return names
