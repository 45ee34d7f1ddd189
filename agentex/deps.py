"""What handlers take as arguments: resources, caller, a session to read with, how a repeat is known."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

from fastapi import Depends, Header, Query, Request
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex import idempotency
from agentex.auth.principal import Principal
from agentex.database import JsonObject, storable
from agentex.errors import InvalidInput
from agentex.idempotency import Repeat, repeat_of
from agentex.resources import Resources

# A client repeats twice by default; what claims more than this is no count.
MAX_RETRY_COUNT = 1_000

# An object in a query, such as what metadata is to hold.
MAX_QUERY_OBJECT_CHARACTERS = 10_000

# The wire's two ways to ask for a page; the bound on page_number keeps OFFSET within a bigint.
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many")]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000, description="Counts from 1")]


# Async, for FastAPI hands a plain function to a thread: with each request, 0.2 ms.
async def _resources(request: Request) -> Resources:
    return cast("Resources", request.app.state.resources)


ResourcesDep = Annotated[Resources, Depends(_resources)]


# Not through ResourcesDep: what it gives is found again for whoever depends on it, 0.03 ms each time.
async def _caller(request: Request) -> Principal:
    return await (await _resources(request)).authz.authenticate(request.headers)


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


def json_object(given: str | None, name: str) -> JsonObject | None:
    """The object that a query parameter holds as JSON; InvalidInput says why it is none. None stays None."""
    if given is None:
        return None
    if len(given) > MAX_QUERY_OBJECT_CHARACTERS:
        raise InvalidInput(name, f"is longer than {MAX_QUERY_OBJECT_CHARACTERS} characters")
    example = 'an object such as {"team": "a"}'
    try:
        found: Any = json.loads(given)
        # NaN, Infinity and 1e999, none of which JSON has.
        json.dumps(found, allow_nan=False)
        is_storable = storable(found) == found
    except (ValueError, RecursionError):
        raise InvalidInput(name, f"{given[:80]!r} is not JSON; give {example}") from None
    if not isinstance(found, dict):
        raise InvalidInput(name, f"{given[:80]!r} is not a JSON object; give {example}")
    if not is_storable:
        raise InvalidInput(name, "holds NUL or half a surrogate pair, which cannot be stored; leave it out")
    return cast("JsonObject", found)
