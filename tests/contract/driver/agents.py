"""agents.*: found, listed, registered by a build, deleted."""

from __future__ import annotations

import json

from agentex import NotFoundError

from calls import UNKNOWN_ID, fresh, has, raises


async def check_retrieve(api):
    metadata = {"commit_sha": "0123456789abcdef0123456789abcdef01234567", "agent_card": {"name": "x"}}
    made = await api.agent("sync", agent_input_type="json", registration_metadata=metadata)
    got = await api.agents.retrieve(made.id)
    has(
        got,
        id=made.id,
        name=made.name,
        description="answers",
        acp_type="sync",
        status="Ready",
        agent_input_type="json",
        registration_metadata=metadata,
        production_deployment_id=None,
    )
    assert got.created_at.tzinfo is not None
    assert got.registered_at is not None
    assert await api.agents.retrieve_by_name(made.name) == got


async def check_list_of_a_task(api):
    agent = await api.agent()
    task = await api.task(agent)
    assert await api.agents.list(task_id=task.id) == [await api.agents.retrieve(agent.id)]


async def check_list_by_card(api):
    mark = fresh("mark")
    card = {"name": "x", "metadata": {"mark": mark, "permits_capable": True}}
    agents = [await api.agent(registration_metadata={"agent_card": card}) for _ in range(3)]
    await api.agent()
    wanted = json.dumps({"mark": mark})
    order = {"order_by": "created_at", "order_direction": "asc", "agent_card_metadata": wanted}
    listed = await api.agents.list(**order)
    assert [one.id for one in listed] == [one.id for one in agents]
    second = await api.agents.list(**order, limit=2, page_number=2)
    assert [one.id for one in second] == [agents[2].id]


async def check_register_build(api):
    name, metadata = fresh("built"), {"commit_sha": "0123456789abcdef0123456789abcdef01234567"}
    built = await api.agents.register_build(
        name=name, description="not deployed", agent_input_type="text", registration_metadata=metadata
    )
    has(built, name=name, description="not deployed", status="BuildOnly", agent_input_type="text")
    again = await api.agents.register_build(name=name, description="not deployed")
    assert again.id == built.id
    assert (await api.agents.retrieve_by_name(name)).status == "BuildOnly"
    deployed = await api.agent(name=name)
    has(deployed, id=built.id, status="Ready")


async def check_delete(api):
    made = await api.agent()
    answer = await api.agents.delete(made.id)
    assert answer.id == made.id
    assert answer.message != ""
    await raises(NotFoundError, api.agents.retrieve(made.id))


async def check_delete_by_name(api):
    made = await api.agent()
    answer = await api.agents.delete_by_name(made.name)
    assert made.id in (answer.id, made.id)
    assert answer.message != ""
    await raises(NotFoundError, api.agents.retrieve_by_name(made.name))


async def check_unknown(api):
    await raises(NotFoundError, api.agents.retrieve(UNKNOWN_ID))
    await raises(NotFoundError, api.agents.retrieve_by_name(fresh("nobody")))
    await raises(NotFoundError, api.agents.delete(UNKNOWN_ID))
    await raises(NotFoundError, api.agents.delete_by_name(fresh("nobody")))
