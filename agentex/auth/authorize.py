"""May this principal do that to this resource? Asked by every handler and by every launch."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.principal import Principal
from agentex.errors import Forbidden, NotFound, Unauthorized


class Operation(StrEnum):
    """What is done to a resource (wire.md §4)."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    EXECUTE = "execute"
    CANCEL = "cancel"


class ResourceType(StrEnum):
    """What something is done to."""

    AGENT = "agent"
    TASK = "task"
    SCHEDULE = "schedule"
    RUN = "run"
    API_KEY = "api_key"
    # Who is in the account, and as what: always asked of the type as such.
    MEMBER = "member"
    # Who did what: always asked of the type as such, and only to read.
    AUDIT = "audit"


@dataclass(frozen=True)
class ResourceRef:
    """One resource, or (id "*") the type as such, to make one."""

    type: ResourceType
    id: str
    account_id: str
    owner: str | None = None


def type_ref(kind: ResourceType, principal: Principal) -> ResourceRef:
    """A type as such, within the caller's account."""
    return ResourceRef(kind, "*", principal.account_id)


@dataclass(frozen=True)
class Decision:
    """The answer, and the rule it follows from, for the ledger.

    gone: there is no such principal any more, so that asking again is of no use until it is back.
    """

    allowed: bool
    rule: str
    gone: bool = False


@dataclass(frozen=True)
class Visible:
    """Which rows of a type a caller may list: those that any of these conditions fits, within its account.

    Each is SQL with {id}, {owner} and {agent_id} for the columns of the list's own table; a condition that
    names a column which the table does not have is left out.
    """

    conditions: tuple[str, ...]
    parameters: Mapping[str, object] = field(default_factory=dict[str, object])

    def apart(self, **columns: str) -> list[str]:
        """The conditions that fit a table with these columns, each by itself."""
        return [c.format(**columns) for c in self.conditions if _named(c) <= columns.keys()]

    def where(self, **columns: str) -> str:
        """One condition for a WHERE: `visible.where(id="t.id", owner="t.owner")`; `false` if none fits."""
        fitting = self.apart(**columns)
        return f"({' OR '.join(fitting)})" if fitting else "false"


EVERYTHING = Visible(("true",))


# Always asked of the type as such: members, and the audit.
_AS_SUCH = frozenset({ResourceType.MEMBER, ResourceType.AUDIT})


class AuthProvider(Protocol):
    """Where principals come from and who decides; one file each under auth/providers."""

    # Whether the provider keeps tasks, so that task.update is asked once a task exists.
    knows_tasks: bool

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The caller of a request; raises Unauthorized or AuthorizerUnavailable."""
        ...

    async def authorize(
        self, session: AsyncSession, principal: Principal, operation: Operation, resource: ResourceRef
    ) -> Decision:
        """The decision; raises AuthorizerUnavailable, which is retryable."""
        ...

    async def visible(self, session: AsyncSession, principal: Principal, kind: ResourceType) -> Visible:
        """What the principal may list of a type; raises AuthorizerUnavailable."""
        ...


@runtime_checkable
class TellsLater(Protocol):
    """A provider that has to be told what is made and removed, after that is committed."""

    async def tell_pending(self) -> int:
        """Tell what is due, and return how much was told; what fails is due again later."""
        ...


async def decide_later(
    provider: AuthProvider,
    session: AsyncSession,
    principal: Principal,
    operation: Operation,
    resource: ResourceRef,
) -> Decision:
    """The decision where the principal is not there to be told 401: whoever is not known is denied."""
    try:
        return await provider.authorize(session, principal, operation, resource)
    except Unauthorized as error:
        return Decision(allowed=False, rule=error.message)


async def let_go(session: AsyncSession) -> None:
    """Give the connection of a session of `db.read()` back before something else is waited for.

    With each request holding one while it waits for a second, or for an authorizer that hangs, there would be
    none left for anybody. What was read stays as it is.
    """
    await session.commit()


async def require(
    provider: AuthProvider,
    session: AsyncSession,
    principal: Principal,
    operation: Operation,
    resource: ResourceRef,
) -> None:
    """Return when allowed; else NotFound when the caller may not even read it, Forbidden when it may.

    A provider may be a service elsewhere, so it is asked with a session of `db.read()`, which has no
    transaction open, before a write: the write finds its rows again by id, within the account.
    """
    decision = await provider.authorize(session, principal, operation, resource)
    if decision.allowed:
        return
    # A type as such is no secret: there is nothing to be found in it. But what is asked as one may be hidden,
    # as a span without a task is, unless it never is a thing.
    is_readable = resource.id == "*" and (operation is not Operation.READ or resource.type in _AS_SUCH)
    if not is_readable and operation is not Operation.READ:
        is_readable = (await provider.authorize(session, principal, Operation.READ, resource)).allowed
    if is_readable:
        raise Forbidden(f"{operation} on {resource.type} {resource.id} is not allowed: {decision.rule}")
    raise NotFound(f"{resource.type} {resource.id!r} not found")


@contextmanager
def hidden_as(absent: NotFound) -> Generator[None]:
    """What is there but hidden is not found in the words in which what is not there is not found.

    Else a name, or something that hangs on a hidden task, would show by the other words that it is there.
    """
    try:
        yield
    except NotFound:
        raise absent from None


async def require_disposal(
    provider: AuthProvider, session: AsyncSession, principal: Principal, resource: ResourceRef
) -> None:
    """Return when the caller may share it or give it away: its owner, or who may delete anything of its type.

    Being allowed to change something is not enough: else what was shared would be shared on. Asked as
    `require` is, and raises the same.
    """
    await require(provider, session, principal, Operation.UPDATE, resource)
    if resource.owner == principal.creator:
        return
    decision = await provider.authorize(
        session, principal, Operation.DELETE, type_ref(resource.type, principal)
    )
    if not decision.allowed:
        raise Forbidden(
            f"{resource.type} {resource.id} is {resource.owner}'s: only its owner or an admin may share it "
            "or give it away"
        )


def _named(condition: str) -> set[str]:
    return {name for name in ("id", "owner", "agent_id") if f"{{{name}}}" in condition}
