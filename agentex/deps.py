"""What handlers take as arguments: resources, caller, a session to read with, how a repeat is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import Depends, Header, Query, Request
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex import idempotency
from agentex.auth.principal import Principal
from agentex.idempotency import Repeat, repeat_of
from agentex.resources import Resources

# A client repeats twice by default; what claims more than this is no count.
MAX_RETRY_COUNT = 1_000

# The wire's two ways to ask for a page; the bound on page_number keeps OFFSET within a bigint.
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many")]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000, description="Counts from 1")]


def _resources(request: Request) -> Resources:
    return cast("Resources", request.app.state.resources)


ResourcesDep = Annotated[Resources, Depends(_resources)]


async def _caller(request: Request, resources: ResourcesDep) -> Principal:
    return await resources.authz.authenticate(request.headers)


# Who calls: authenticated from the request's headers, and nothing of them kept.
Caller = Annotated[Principal, Depends(_caller)]


async def _read_session(resources: ResourcesDep) -> AsyncIterator[AsyncSession]:
    async with resources.db.read() as session:
        yield session


# A session for reads, given back before the answer goes out, so that a slow client holds no connection.
# Writes open `resources.db.begin()` themselves: a commit that fails must not follow a 200 (style rule 5).
ReadSession = Annotated[AsyncSession, Depends(_read_session, scope="function")]


async def _repeat(
    request: Request,
    caller: Caller,
    idempotency_key: Annotated[
        str | None, Header(description="Makes repeats of this request have one effect, for a day")
    ] = None,
) -> Repeat:
    return repeat_of(
        idempotency.Request(
            method=request.method,
            path=request.scope["path"],
            body=await request.body(),
            peer=request.client.host if request.client else "",
            user_agent=request.headers.get("user-agent", ""),
            retry_count=_retry_count(request.headers.get("x-stainless-retry-count", "")),
            key=idempotency_key,
        ),
        caller,
    )


# How a silent repeat of this request, or one under the same Idempotency-Key, would be known.
RepeatDep = Annotated[Repeat, Depends(_repeat)]


def _retry_count(value: str) -> int:
    """The client's count of repeats; 0 for anything that is none."""
    if not (value.isascii() and value.isdigit()) or len(value) > len(str(MAX_RETRY_COUNT)):
        return 0
    count = int(value)
    return count if count <= MAX_RETRY_COUNT else 0
