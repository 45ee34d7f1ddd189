"""Authorization in this process: what rules.py decides, with the facts looked up in Postgres.

One statement for a question, on the driver itself. Nothing is remembered from one question to the next, so
that a revocation counts at once in all processes.
"""

from __future__ import annotations

import json

from agentex.auth.authorize import EVERYTHING, Decision, Operation, ResourceRef, ResourceType, Visible
from agentex.auth.principal import Principal
from agentex.auth.rules import Facts, Question, Role, decide, in_scope, reads_all
from agentex.database import Database, rows

_AGENT_OF = {
    ResourceType.AGENT: "SELECT a.name FROM agents a WHERE a.id = CAST(:id AS uuid)",
    ResourceType.TASK: "SELECT a.name FROM tasks t JOIN agents a ON a.id = t.agent_id "
    "WHERE t.id = CAST(:id AS uuid)",
    ResourceType.SCHEDULE: "SELECT a.name FROM agent_run_schedules s JOIN agents a ON a.id = s.agent_id "
    "WHERE s.id = CAST(:id AS uuid)",
    ResourceType.RUN: "SELECT a.name FROM runs r JOIN agents a ON a.id = r.agent_id "
    "WHERE r.id = CAST(:id AS uuid)",
    ResourceType.API_KEY: "SELECT a.name FROM agent_api_keys k JOIN agents a ON a.id = k.agent_id "
    "WHERE k.id = CAST(:id AS uuid)",
}
_GRANTED = """
    {id} IN (SELECT resource_id FROM grants WHERE account_id = :seen_account AND member = :seen_member
        AND resource_type = :seen_kind AND operations @> '["read"]')
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

    async def authorize(self, principal: Principal, operation: Operation, resource: ResourceRef) -> Decision:
        """What the rules say of it."""
        question = Question(principal, operation, resource)
        if principal.account_id != resource.account_id:
            return decide(question, Facts(is_member=False))
        return decide(question, await self._facts(principal, resource))

    async def visible(self, principal: Principal, kind: ResourceType) -> Visible:
        """All of the type, or what is the principal's own, was granted to it, or hangs on it as an agent."""
        found = await rows(self._db, _MEMBER_SQL, account_id=principal.account_id, name=principal.creator)
        if not found or not in_scope(principal.scopes, f"{kind}.{Operation.READ}"):
            return Visible(())
        return EVERYTHING if reads_all(_role(found[0]["role"]), kind) else _own(principal, kind)

    async def _facts(self, principal: Principal, resource: ResourceRef) -> Facts:
        named: dict[str, object] = {"account_id": principal.account_id, "name": principal.creator}
        if resource.id == "*":
            found = await rows(self._db, _MEMBER_SQL, **named)
            return Facts(is_member=True, role=_role(found[0]["role"])) if found else Facts(is_member=False)
        agent_of = f"({_AGENT_OF[resource.type]})" if principal.agent_name else "NULL::text"
        found = await rows(
            self._db,
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


def _own(principal: Principal, kind: ResourceType) -> Visible:
    conditions = [
        "{owner} = :seen_member",
        _GRANTED,
    ]
    parameters = {
        "seen_member": principal.creator,
        "seen_account": principal.account_id,
        "seen_kind": kind.value,
    }
    if principal.agent_name is not None and kind is not ResourceType.API_KEY:
        conditions.append(
            "{agent_id} IN (SELECT id FROM agents WHERE account_id = :seen_account AND name = :seen_agent)"
        )
        parameters["seen_agent"] = principal.agent_name
    return Visible(tuple(conditions), parameters)
