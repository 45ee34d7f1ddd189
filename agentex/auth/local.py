"""Authorization in this process: what rules.py decides, with the facts looked up in Postgres.

One statement for a question, on the driver itself. Nothing is remembered from one question to the next, so
that a revocation counts at once in all processes.
"""

from __future__ import annotations

import json

from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.auth.authorize import EVERYTHING, Decision, Operation, ResourceRef, ResourceType, Visible
from agentex.auth.principal import Principal
from agentex.auth.rules import (
    Facts,
    Question,
    Role,
    decide,
    in_scope,
    reads_all,
    reads_of_agent,
    reads_own,
)
from agentex.database import Database, rows

# The name of the agent that a resource is, or hangs on. A deleted agent is nobody: who has its name now is
# another.
_AGENT_OF_SQL = """(SELECT a.name FROM {table} JOIN agents a ON a.id = {agent_id}
    WHERE t.id = CAST(:id AS uuid) AND a.account_id = m.account_id AND a.deleted_at IS NULL)"""
_AGENT_OF = {
    ResourceType.AGENT: _AGENT_OF_SQL.format(table="agents t", agent_id="t.id"),
    ResourceType.TASK: _AGENT_OF_SQL.format(table="tasks t", agent_id="t.agent_id"),
    ResourceType.SCHEDULE: _AGENT_OF_SQL.format(table="agent_run_schedules t", agent_id="t.agent_id"),
    ResourceType.RUN: _AGENT_OF_SQL.format(table="runs t", agent_id="t.agent_id"),
    ResourceType.API_KEY: _AGENT_OF_SQL.format(table="agent_api_keys t", agent_id="t.agent_id"),
}
_OF_AGENT = """{agent_id} = (SELECT id FROM agents WHERE account_id = :seen_account AND name = :seen_agent
        AND deleted_at IS NULL)"""
_OWNED = "{owner} = :seen_member"
# So that the partial index on what agents own serves it.
_OWNED_BY_AGENT = f"{_OWNED} AND {{owner}} LIKE 'agent:%'"
_GRANTED = """
    {id} IN (SELECT resource_id FROM grants WHERE account_id = :seen_account AND member = :seen_member
        AND resource_type = '{kind}' AND operations @> '["read"]')
"""
_MEMBER_SQL = """
    SELECT role FROM members WHERE account_id = :account_id AND name = :name AND disabled_at IS NULL
"""
_FACTS_SQL = """
    SELECT m.role, g.operations::text AS operations, {agent_of} AS agent_name
    FROM members m LEFT JOIN grants g ON g.account_id = m.account_id AND g.member = m.name
        AND g.resource_type = :kind AND g.resource_id = CAST(:id AS uuid)
    WHERE m.account_id = :account_id AND m.name = :name AND m.disabled_at IS NULL
"""


class LocalAuthorizer:
    """Decides by members, roles, ownership and grants."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def authorize(
        self,
        principal: Principal,
        operation: Operation,
        resource: ResourceRef,
        session: AsyncSession | None = None,
    ) -> Decision:
        """What the rules say of it."""
        question = Question(principal, operation, resource)
        if principal.account_id != resource.account_id:
            return decide(question, Facts(is_member=False))
        return decide(question, await self._facts(principal, resource, self._source(session)))

    async def visible(
        self, principal: Principal, kind: ResourceType, session: AsyncSession | None = None
    ) -> Visible:
        """All of the type, or what is the principal's own, was granted to it, or hangs on it as an agent."""
        found = await rows(
            self._source(session), _MEMBER_SQL, account_id=principal.account_id, name=principal.creator
        )
        if not found or not in_scope(principal.scopes, f"{kind}.{Operation.READ}"):
            return Visible(())
        role = _role(found[0]["role"])
        return EVERYTHING if reads_all(role, kind) else _own(principal, role, kind)

    def _source(self, session: AsyncSession | None) -> AsyncSession | Database:
        """The session where it holds a connection: all that are in use would wait for a second one each."""
        return session if session is not None and session.in_transaction() else self._db

    async def _facts(
        self, principal: Principal, resource: ResourceRef, source: AsyncSession | Database
    ) -> Facts:
        named: dict[str, object] = {"account_id": principal.account_id, "name": principal.creator}
        if resource.id == "*":
            found = await rows(source, _MEMBER_SQL, **named)
            return Facts(is_member=True, role=_role(found[0]["role"])) if found else Facts(is_member=False)
        agent_of = _AGENT_OF[resource.type] if principal.agent_name else "NULL::text"
        found = await rows(
            source,
            _FACTS_SQL.format(agent_of=agent_of),
            kind=resource.type.value,
            # A schedule's has its agent's in front (wire.md §4).
            id=resource.id.rpartition("::")[2],
            **named,
        )
        if not found:
            return Facts(is_member=False)
        row = found[0]
        return Facts(
            is_member=True,
            role=_role(row["role"]),
            granted=frozenset(Operation(name) for name in json.loads(row["operations"] or "[]")),
            is_of_caller=principal.agent_name is not None and row["agent_name"] == principal.agent_name,
        )


def _role(stored: str | None) -> Role | None:
    return Role(stored) if stored else None


def _own(principal: Principal, role: Role | None, kind: ResourceType) -> Visible:
    """As `decide` would say of each row by itself."""
    conditions = [_GRANTED.replace("{kind}", kind)]
    parameters: dict[str, object] = {
        "seen_member": principal.creator,
        "seen_account": principal.account_id,
    }
    if reads_own(role, kind):
        conditions.append(_OWNED_BY_AGENT if principal.agent_name else _OWNED)
    if principal.agent_name is not None and reads_of_agent(role, kind):
        conditions.append(_OF_AGENT)
        parameters["seen_agent"] = principal.agent_name
    return Visible(tuple(conditions), parameters)
