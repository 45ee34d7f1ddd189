"""An authorizer of one's own says who calls and what they may do (wire.md §4).

Agents are judged here: they have keys of this service, and what is theirs is known here alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from time import monotonic
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import (
    EVERYTHING,
    Decision,
    Operation,
    ResourceRef,
    ResourceType,
    Visible,
    let_go,
)
from agentex.auth.keys import own_key, principal_of_key
from agentex.auth.local import LocalAuthorizer
from agentex.auth.principal import Principal
from agentex.auth.registrations import Registrations
from agentex.auth.remote_calls import RemoteCalls
from agentex.auth.rules import in_scope
from agentex.database import Database, JsonObject, rows
from agentex.errors import Unauthorized
from agentex.settings import Settings

ANY = "*"
_YES = Decision(allowed=True, rule="the remote authorizer says yes")
_NO = Decision(allowed=False, rule="the remote authorizer says no")
_OTHER_ACCOUNT = Decision(allowed=False, rule="another account")
_RUN_SQL = "SELECT agent_id, schedule_id, task_id FROM runs WHERE id = CAST(:id AS uuid)"
_SEEN = "{id} = ANY(CAST(:seen_items AS uuid[]))"
_SEEN_RUNS = """EXISTS (SELECT FROM runs seen
    WHERE seen.id = {id} AND seen.schedule_id = ANY(CAST(:seen_items AS uuid[])))"""


class RemoteProvider:
    """Asks AGENTEX_REMOTE_AUTH_URL; remembers who somebody is for a while, and never what they may do."""

    knows_tasks = True

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self._names = sorted(settings.remote_auth_headers)
        self._calls = RemoteCalls(settings)
        self._registrations = Registrations(db, self._calls)
        self._local = LocalAuthorizer(db)
        self.known = KnownCallers(settings.remote_auth_cache_entries, settings.remote_auth_cache_seconds)

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Who the authorizer says that it is, or whose key of this service it is."""
        key = own_key(headers)
        if key is not None:
            return await principal_of_key(self._db, key)
        sent = self._sent(headers)
        digest = digest_of(sent)
        known = self.known.get(digest)
        if known is not None:
            return known
        principal = await self._calls.who(sent)
        self.known.put(digest, principal)
        return principal

    async def authorize(
        self, session: AsyncSession, principal: Principal, operation: Operation, resource: ResourceRef
    ) -> Decision:
        """What the authorizer says of it; of agents, what is known here."""
        if principal.account_id != resource.account_id:
            return _OTHER_ACCOUNT
        await let_go(session)
        if principal.agent_name is not None:
            return await self._local.authorize(principal, operation, resource)
        words = f"{resource.type}.{operation}"
        if not in_scope(principal.scopes, words):
            return Decision(allowed=False, rule=f"the key's scopes lack {words}")
        named = await self._named(resource)
        said = named and await self._may(principal, operation, named)
        return _YES if said else _NO

    async def visible(self, session: AsyncSession, principal: Principal, kind: ResourceType) -> Visible:
        """What a search of the authorizer finds; of agents, what is known here."""
        await let_go(session)
        if principal.agent_name is not None:
            return await self._local.visible(principal, kind)
        if not in_scope(principal.scopes, f"{kind}.{Operation.READ}"):
            return Visible(())
        is_run = kind is ResourceType.RUN
        asked = ResourceType.SCHEDULE if is_run else kind
        await self._registrations.settle_own(principal, asked)
        found = await self._calls.readable(principal.model_dump(mode="json"), asked.value)
        if found is None:
            return EVERYTHING
        ids = [known for selector in found if (known := _id_of(selector)) is not None]
        return Visible((_SEEN_RUNS if is_run else _SEEN,), {"seen_items": ids}) if ids else Visible(())

    async def tell_pending(self) -> int:
        """Tell the authorizer what has been made and removed."""
        return await self._registrations.tell_pending()

    async def aclose(self) -> None:
        """Ask no more."""
        await self._calls.aclose()

    def _sent(self, headers: Mapping[str, str]) -> dict[str, str]:
        """What of a request the authorizer is shown: the headers that tell who calls, and nothing else."""
        sent = {name: value for name in self._names if (value := headers.get(name))}
        if not sent:
            raise Unauthorized(f"no credential: send one of the headers {', '.join(self._names)}")
        for name, value in sent.items():
            if not (value.isascii() and value.isprintable()):
                raise Unauthorized(f"the header {name} has characters that are not printable ASCII")
        return sent

    async def _may(self, principal: Principal, operation: Operation, named: JsonObject) -> bool:
        who = principal.model_dump(mode="json")
        if await self._calls.may(who, named, operation.value):
            return True
        # A no to what it has not been told of yet is none.
        selector = named["selector"]
        told = selector != ANY and await self._registrations.settle(principal, selector)
        return told and await self._calls.may(who, named, operation.value)

    async def _named(self, resource: ResourceRef) -> JsonObject | None:
        """The resource as the contract names it, which knows no runs: one goes with its schedule, or task."""
        if resource.type is not ResourceType.RUN:
            return {"type": resource.type.value, "selector": resource.id}
        if resource.id == ANY:
            return {"type": ResourceType.SCHEDULE.value, "selector": ANY}
        found = await rows(self._db, _RUN_SQL, id=resource.id)
        if not found:
            return None
        run = found[0]
        if run["schedule_id"] is None:
            return {"type": ResourceType.TASK.value, "selector": str(run["task_id"])}
        selector = f"run-schedule::{run['agent_id']}::{run['schedule_id']}"
        return {"type": ResourceType.SCHEDULE.value, "selector": selector}


class KnownCallers:
    """Principals by what their requests showed, for some seconds; the longest unused goes first."""

    def __init__(self, entries: int, seconds: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._entries = entries
        self._seconds = seconds
        self.clock = clock
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def get(self, digest: bytes) -> Principal | None:
        """Who it is, None when that is not known, or no longer."""
        found = self._known.get(digest)
        if found is None or self.clock() >= found[0]:
            self._known.pop(digest, None)
            return None
        self._known.move_to_end(digest)
        return found[1]

    def put(self, digest: bytes, principal: Principal) -> None:
        """Remember it from now on."""
        self._known[digest] = (self.clock() + self._seconds, principal)
        self._known.move_to_end(digest)
        if len(self._known) > self._entries:
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)


def digest_of(sent: Mapping[str, str]) -> bytes:
    """By which headers are known again; nothing of them is kept. NUL, which no header has, ends each part."""
    text = "".join(f"{name}\0{value}\0" for name, value in sorted(sent.items()))
    return sha256(text.encode()).digest()


def _id_of(selector: str) -> UUID | None:
    """The id at the end of a selector; None for one that is none of ours."""
    try:
        return UUID(selector.rpartition("::")[2])
    except ValueError:
        return None
