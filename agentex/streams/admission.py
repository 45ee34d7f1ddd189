"""By which credential a stream was opened, asked again while it is open: a revoked key reads no further."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from agentex.auth.principal import Principal
from agentex.database import DATABASE_ERRORS, is_unavailable
from agentex.errors import Unauthorized, Unavailable

# Somebody else's sign of life waits for it.
ASK_SECONDS = 2.0
# What differs between the requests of one client and is no credential.
_PASSING = frozenset({"last-event-id", "traceparent", "tracestate", "x-request-id", "user-agent"})

Credential = frozenset[tuple[str, str]]


class Standing(Enum):
    """What is known of a credential now."""

    GOOD = auto()
    REFUSED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, repr=False)
class Admission:
    """A caller, and how it is authenticated once more."""

    principal: Principal
    headers: Mapping[str, str]
    authenticate: Callable[[Mapping[str, str]], Awaitable[Principal]]

    @property
    def credential(self) -> Credential:
        """The same for requests that are authenticated alike."""
        return frozenset((name, value) for name, value in self.headers.items() if name not in _PASSING)

    async def standing(self) -> Standing:
        """Whether the credential still opens what it did."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                now = await self.authenticate(self.headers)
        except Unauthorized:
            return Standing.REFUSED
        except (Unavailable, TimeoutError):
            return Standing.UNKNOWN
        except DATABASE_ERRORS as error:
            if not is_unavailable(error):
                raise
            return Standing.UNKNOWN
        same = (now.account_id, now.creator) == (self.principal.account_id, self.principal.creator)
        return Standing.GOOD if same else Standing.REFUSED


async def ask(admissions: Iterable[Admission]) -> dict[Credential, Standing]:
    """How these stand, each credential asked for once, however many streams it has opened."""
    different = {admission.credential: admission for admission in admissions}
    found = await asyncio.gather(*[admission.standing() for admission in different.values()])
    return dict(zip(different, found, strict=True))
