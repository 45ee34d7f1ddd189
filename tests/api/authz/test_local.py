"""The local authorizer on Postgres: members, guests with grants, agents; lists show what may be read."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from agentex.agents.models import Agent
from agentex.agents.service import agent_ref
from agentex.auth.authorize import EVERYTHING, Decision, Operation, ResourceRef, ResourceType
from agentex.auth.lists import creator_of
from agentex.auth.principal import Principal, PrincipalType, agent_principal
from agentex.auth.rules import Role
from agentex.auth.service import put_member
from agentex.resources import Resources
from agentex.runs.models import RunStatus
from agentex.runs.service import run_ref
from agentex.schedules.service import schedule_ref
from agentex.tasks.service import task_ref
from tests.api.authz.members import FIRST, SECOND, user
from tests.api.ledger.stage import add_agent, add_run, add_schedule, add_task, fetch

GREETER = agent_principal(FIRST, "greeter")
ALICE, BOB = user("alice"), user("bob")


async def be(resources: Resources, member: Principal, role: Role | None) -> None:
    async with resources.db.begin() as session:
        await put_member(session, member, role)


async def decided(
    resources: Resources, principal: Principal, operation: Operation, ref: ResourceRef
) -> Decision:
    async with resources.db.read() as session:
        return await resources.authz.authorize(session, principal, operation, ref)


async def share(resources: Resources, member: Principal, ref: ResourceRef, *operations: Operation) -> None:
    await fetch(
        resources,
        """
        INSERT INTO grants (id, account_id, member, resource_type, resource_id, operations, granted_by,
            created_at)
        VALUES (:id, :account, :member, :kind, :resource, CAST(:operations AS jsonb), 'test', now())
        """,
        id=uuid4(),
        account=member.account_id,
        member=member.creator,
        kind=ref.type.value,
        resource=UUID(ref.id.rpartition("::")[2]),
        operations=json.dumps(operations),
    )


# By whom each thing is in the test below, and of which agent.
OWNERS = (ALICE, BOB, GREETER)


async def things(resources: Resources) -> list[tuple[ResourceRef, str]]:
    """Tasks, schedules, runs and agents of two agents by three owners: each with its id."""
    greeter = await add_agent(resources, "greeter", account_id=FIRST)
    other = await add_agent(resources, "other", account_id=FIRST)
    made: list[ResourceRef] = [agent_ref(greeter), agent_ref(other)]
    for agent in (greeter, other):
        for owner in OWNERS:
            principal: dict[str, Any] = owner.model_dump(mode="json")
            task = await add_task(resources, agent)
            await fetch(resources, "UPDATE tasks SET owner = :o WHERE id = :id", o=owner.creator, id=task.id)
            task.owner = owner.creator
            schedule = await add_schedule(resources, agent, None, creator_principal=principal)
            run = await add_run(resources, agent, RunStatus.DELIVERED, principal=principal)
            made += [task_ref(task), schedule_ref(schedule), run_ref(run)]
    return [(ref, ref.id.rpartition("::")[2]) for ref in made]


COLUMNS = {
    ResourceType.AGENT: ("agents", {"id": "id", "owner": "owner", "agent_id": "id"}),
    ResourceType.TASK: ("tasks", {"id": "id", "owner": "owner", "agent_id": "agent_id"}),
    ResourceType.SCHEDULE: (
        "agent_run_schedules",
        {"id": "id", "owner": creator_of("creator_principal"), "agent_id": "agent_id"},
    ),
    ResourceType.RUN: ("runs", {"id": "id", "owner": creator_of("principal"), "agent_id": "agent_id"}),
}
CALLERS = [
    *[(ALICE, role) for role in Role if role is not Role.AGENT],
    (ALICE, None),
    (GREETER, Role.AGENT),
    (GREETER, None),
    # A service account may be an agent's by its role, and is none by its kind.
    (user("alice"), Role.AGENT),
]


@pytest.mark.parametrize(("caller", "role"), CALLERS, ids=[f"{c.creator}-{role}" for c, role in CALLERS])
async def test_lists_show_exactly_what_may_be_read(
    resources: Resources, caller: Principal, role: Role | None
) -> None:
    await be(resources, caller, role)
    made = await things(resources)
    # One of each that is of another agent and another owner.
    for ref, _ in [item for item in made if item[0].owner == BOB.creator][-3:]:
        await share(resources, caller, ref, Operation.READ)
    for kind, (table, columns) in COLUMNS.items():
        readable = {
            id_
            for ref, id_ in made
            if ref.type is kind and (await decided(resources, caller, Operation.READ, ref)).allowed
        }
        async with resources.db.read() as session:
            seen = await resources.authz.visible(session, caller, kind)
        named = {
            name: value for name, value in seen.parameters.items() if f":{name}" in seen.where(**columns)
        }
        found = await fetch(resources, f"SELECT id FROM {table} WHERE {seen.where(**columns)}", **named)  # noqa: S608
        assert {str(row["id"]) for row in found} == readable, kind
        if caller is GREETER and role is Role.AGENT and kind is not ResourceType.AGENT:
            # Its own three, its one of the other agent, and what was shared.
            assert len(readable) == 5


async def test_who_has_left_may_nothing_and_may_again_when_back(resources: Resources) -> None:
    await be(resources, ALICE, Role.ADMIN)
    agent = await add_agent(resources, account_id=FIRST)
    await share(resources, ALICE, agent_ref(agent), Operation.READ)
    await fetch(resources, "UPDATE members SET disabled_at = now()")

    gone = await decided(resources, ALICE, Operation.READ, agent_ref(agent))
    assert gone == Decision(
        allowed=False, rule="user:alice is no member of the account, or no longer", gone=True
    )
    async with resources.db.read() as session:
        for kind in ResourceType:
            assert (await resources.authz.visible(session, ALICE, kind)).where(id="id", owner="o") == "false"
            assert (await decided(resources, ALICE, Operation.CREATE, type_of(kind))).gone

    await be(resources, ALICE, Role.VIEWER)
    back = await decided(resources, ALICE, Operation.READ, agent_ref(agent))
    assert (back.allowed, back.rule) == (True, "role viewer")


def type_of(kind: ResourceType) -> ResourceRef:
    return ResourceRef(kind, "*", FIRST)


async def test_a_guest_may_what_it_was_granted_with_that_one_thing(resources: Resources) -> None:
    await be(resources, ALICE, None)
    agent = await add_agent(resources, account_id=FIRST)
    shared, other = await add_task(resources, agent), await add_task(resources, agent)
    await share(resources, ALICE, task_ref(shared), Operation.READ, Operation.CANCEL)

    allowed = {
        operation
        for operation in Operation
        if (await decided(resources, ALICE, operation, task_ref(shared))).allowed
    }
    assert allowed == {Operation.READ, Operation.CANCEL}
    for ref in (task_ref(other), agent_ref(agent), type_of(ResourceType.TASK)):
        assert not (await decided(resources, ALICE, Operation.READ, ref)).allowed
    # Of one id there may be things of two types.
    for kind in (ResourceType.AGENT, ResourceType.RUN):
        assert not (
            await decided(resources, ALICE, Operation.READ, ResourceRef(kind, str(shared.id), FIRST))
        ).allowed


async def test_a_grant_of_another_account_is_none(resources: Resources) -> None:
    """Somebody of the same name elsewhere, who was granted the same id there."""
    await be(resources, ALICE, None)
    namesake = user("alice", SECOND)
    await be(resources, namesake, Role.ADMIN)
    task = await add_task(resources, await add_agent(resources, account_id=FIRST))
    await share(resources, namesake, task_ref(task), *Operation)
    for caller in (ALICE, namesake):
        assert not (await decided(resources, caller, Operation.READ, task_ref(task))).allowed
    # Also where a caller of ours takes a foreign id for one of its account.
    lied = ResourceRef(ResourceType.TASK, str(task.id), FIRST)
    assert not (await decided(resources, ALICE, Operation.READ, lied)).allowed


async def test_an_agent_has_itself_and_what_hangs_on_it(resources: Resources) -> None:
    await be(resources, GREETER, Role.AGENT)
    greeter = await add_agent(resources, "greeter", account_id=FIRST)
    other = await add_agent(resources, "other", account_id=FIRST)
    namesake = await add_agent(resources, "greeter", account_id=SECOND)

    async def may(operation: Operation, ref: ResourceRef) -> bool:
        return (await decided(resources, GREETER, operation, ref)).allowed

    async def of(agent: Agent) -> ResourceRef:
        return task_ref(await add_task(resources, agent))

    assert await may(Operation.UPDATE, agent_ref(greeter))
    assert not await may(Operation.UPDATE, agent_ref(other))
    assert await may(Operation.UPDATE, await of(greeter))
    assert not await may(Operation.READ, await of(other))
    foreign = await of(namesake)
    assert not await may(Operation.READ, foreign)
    # Nor under the right account's name.
    assert not await may(Operation.READ, ResourceRef(ResourceType.TASK, foreign.id, FIRST))


async def test_who_takes_a_deleted_agents_name_does_not_get_its_tasks(resources: Resources) -> None:
    await be(resources, GREETER, Role.AGENT)
    before = await add_agent(resources, "greeter", account_id=FIRST)
    task = task_ref(await add_task(resources, before))
    await fetch(resources, "UPDATE agents SET deleted_at = now(), status = 'Deleted'")
    await add_agent(resources, "greeter", account_id=FIRST)

    assert not (await decided(resources, GREETER, Operation.READ, task)).allowed
    async with resources.db.read() as session:
        seen = await resources.authz.visible(session, GREETER, ResourceType.TASK)
    where = seen.where(id="id", owner="owner", agent_id="agent_id")
    assert await fetch(resources, f"SELECT id FROM tasks WHERE {where}", **seen.parameters) == []  # noqa: S608


async def test_scopes_limit_what_is_listed(resources: Resources) -> None:
    await be(resources, ALICE, Role.ADMIN)
    limited = ALICE.model_copy(update={"scopes": frozenset({"agent.*"})})
    async with resources.db.read() as session:
        assert await resources.authz.visible(session, limited, ResourceType.AGENT) == EVERYTHING
        tasks = await resources.authz.visible(session, limited, ResourceType.TASK)
    assert tasks.where(id="id", owner="owner", agent_id="agent_id") == "false"


PRINCIPALS = [
    ALICE,
    GREETER,
    Principal(user_id="old", account_id=FIRST),
    Principal(service_account_id="ci", account_id=FIRST),
    Principal(principal_type=PrincipalType.SERVICE_ACCOUNT, service_account_id="ci", account_id=FIRST),
    Principal(principal_type=PrincipalType.USER, user_id="", service_account_id="x", account_id=FIRST),
]


@pytest.mark.parametrize("principal", PRINCIPALS, ids=[one.creator for one in PRINCIPALS])
async def test_sql_names_a_stored_principal_as_python_does(
    resources: Resources, principal: Principal
) -> None:
    agent = await add_agent(resources, account_id=FIRST)
    await add_run(resources, agent, RunStatus.DELIVERED, principal=principal.model_dump(mode="json"))
    found = await fetch(resources, f"SELECT {creator_of('principal')} AS creator FROM runs")  # noqa: S608
    assert [row["creator"] for row in found] == [principal.creator]


def test_everything_is_a_thing_of_roles_alone() -> None:
    assert EVERYTHING.apart() == ["true"]
