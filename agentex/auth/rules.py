"""What roles, ownership and grants allow. Pure: the facts are looked up by local.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agentex.auth.authorize import Decision, Operation, ResourceRef, ResourceType
from agentex.auth.principal import Principal


class Role(StrEnum):
    """What a principal is in its account; one that has none may do what it was granted."""

    # Everything in the account.
    ADMIN = "admin"
    # Keeps things running: reads all, and starts, stops and changes whatever is there.
    OPERATOR = "operator"
    # Makes agents, tasks and schedules, and has its own ones at its disposal; reads all.
    EDITOR = "editor"
    # Reads all.
    VIEWER = "viewer"
    # An agent: itself, and what hangs on it.
    AGENT = "agent"


@dataclass(frozen=True)
class Facts:
    """What is known of a principal, and of it with a resource. role None: a guest."""

    is_member: bool
    role: Role | None = None
    granted: frozenset[Operation] = frozenset()
    # The resource is the agent that calls, or is a task, schedule or run of it.
    is_of_caller: bool = False


_Table = Mapping[ResourceType, Collection[Operation]]

_THINGS = (ResourceType.AGENT, ResourceType.TASK, ResourceType.SCHEDULE, ResourceType.RUN)
# Members and the audit are nobody's own.
_OWNED = (*_THINGS, ResourceType.API_KEY)
_READ = frozenset({Operation.READ})
_RUNNING = frozenset({Operation.READ, Operation.UPDATE, Operation.EXECUTE, Operation.CANCEL})
_MAKING = frozenset({Operation.READ, Operation.CREATE})
_ALL = frozenset(Operation)

# What a role may do to anything of its account.
_OF_ROLE: Mapping[Role, _Table] = {
    Role.ADMIN: dict.fromkeys(ResourceType, _ALL),
    Role.OPERATOR: {
        ResourceType.AGENT: _RUNNING,
        ResourceType.TASK: _RUNNING | {Operation.CREATE},
        ResourceType.SCHEDULE: _RUNNING | {Operation.CREATE},
        ResourceType.RUN: _RUNNING | {Operation.CREATE},
        ResourceType.API_KEY: {Operation.CREATE},
    },
    Role.EDITOR: {
        ResourceType.AGENT: _MAKING | {Operation.EXECUTE},
        ResourceType.TASK: _MAKING,
        ResourceType.SCHEDULE: _MAKING,
        ResourceType.RUN: _MAKING,
        ResourceType.API_KEY: {Operation.CREATE},
    },
    Role.VIEWER: dict.fromkeys(_THINGS, _READ),
    Role.AGENT: {
        ResourceType.AGENT: {Operation.READ, Operation.EXECUTE},
        ResourceType.TASK: {Operation.CREATE},
    },
}
# What a role may do to what its principal has made.
_OF_OWNER: Mapping[Role, _Table] = {
    Role.OPERATOR: dict.fromkeys(_OWNED, _ALL),
    Role.EDITOR: dict.fromkeys(_OWNED, _ALL),
    # Its keys, of which somebody else has made the first.
    Role.VIEWER: {ResourceType.API_KEY: {Operation.READ, Operation.UPDATE, Operation.DELETE}},
    Role.AGENT: dict.fromkeys(_OWNED, _ALL),
}
# What an agent may do to itself and to what hangs on it.
_OF_CALLER: _Table = {
    ResourceType.AGENT: {Operation.READ, Operation.UPDATE, Operation.EXECUTE},
    ResourceType.TASK: {Operation.READ, Operation.UPDATE, Operation.CANCEL},
    ResourceType.SCHEDULE: _READ,
    ResourceType.RUN: _READ,
}


@dataclass(frozen=True)
class Question:
    """One operation of one principal on one resource."""

    principal: Principal
    operation: Operation
    resource: ResourceRef

    @property
    def words(self) -> str:
        """As scopes and the ledger name it, e.g. `task.update`."""
        return f"{self.resource.type}.{self.operation}"


def decide(question: Question, facts: Facts) -> Decision:
    """The first rule that says yes; else a no with its reason."""
    refusal = _refusal(question, facts)
    if refusal is not None:
        return refusal
    rule = _allowing_rule(question, facts)
    if rule is not None:
        return Decision(allowed=True, rule=rule)
    having = f"role {facts.role}" if facts.role else "no role"
    return Decision(allowed=False, rule=f"{question.principal.creator} has {having} and no grant of it")


def reads_all(role: Role | None, kind: ResourceType) -> bool:
    """Whether the role reads all of a type."""
    return role is not None and Operation.READ in _OF_ROLE[role].get(kind, ())


def reads_own(role: Role | None, kind: ResourceType) -> bool:
    """Whether the role reads what its principal has made of a type."""
    return role is not None and Operation.READ in _OF_OWNER.get(role, {}).get(kind, ())


def reads_of_agent(role: Role | None, kind: ResourceType) -> bool:
    """Whether an agent in this role reads what hangs on it of a type."""
    return role is not None and Operation.READ in _OF_CALLER.get(kind, ())


def in_scope(scopes: Collection[str] | None, words: str) -> bool:
    """Whether a credential with these scopes covers `task.update`: by it, `task.*`, `*.update` or `*`.

    None is no limit.
    """
    if scopes is None:
        return True
    kind, _, operation = words.partition(".")
    return any(scope in scopes for scope in (words, f"{kind}.*", f"*.{operation}", "*"))


def _refusal(question: Question, facts: Facts) -> Decision | None:
    principal, resource = question.principal, question.resource
    if principal.account_id != resource.account_id:
        return Decision(allowed=False, rule="another account")
    if not facts.is_member:
        rule = f"{principal.creator} is no member of the account, or no longer"
        return Decision(allowed=False, rule=rule, gone=True)
    if not in_scope(principal.scopes, question.words):
        return Decision(allowed=False, rule=f"the key's scopes lack {question.words}")
    return None


def _allowing_rule(question: Question, facts: Facts) -> str | None:
    kind, operation = question.resource.type, question.operation
    role = facts.role
    if role is not None:
        if operation in _OF_ROLE[role].get(kind, ()):
            return f"role {role}"
        # What nobody owns is nobody's, whatever it is called.
        is_owner = (
            question.resource.owner is not None and question.resource.owner == question.principal.creator
        )
        if is_owner and operation in _OF_OWNER.get(role, {}).get(kind, ()):
            return f"role {role}, owner"
        if facts.is_of_caller and operation in _OF_CALLER.get(kind, ()):
            return "of the agent itself"
    return "grant" if operation in facts.granted else None
