"""agents.deployments.* and deployment_history.*: what of an agent is deployed, and was."""

from __future__ import annotations

from datetime import UTC, datetime

from agentex.types import Task

from agentex import BadRequestError, NotFoundError

from calls import UNKNOWN_ID, fresh, has, raises

IMAGE = "registry.example/agent:1"


async def check_create_and_retrieve(api):
    agent = await api.agent()
    made = await api.agents.deployments.create(
        agent.id,
        docker_image=IMAGE,
        helm_release_name="agent-1",
        sgp_deploy_id="d-1",
        registration_metadata={"branch_name": "main"},
    )
    has(
        made,
        agent_id=agent.id,
        docker_image=IMAGE,
        helm_release_name="agent-1",
        sgp_deploy_id="d-1",
        registration_metadata={"branch_name": "main"},
        status="Pending",
        is_production=False,
        acp_url=None,
        promoted_at=None,
        expires_at=None,
    )
    got = await api.agents.deployments.retrieve(made.id, agent_id=agent.id)
    assert got.to_dict() == made.to_dict()


async def check_list(api):
    agent = await api.agent()
    made = [await api.agents.deployments.create(agent.id, docker_image=f"{IMAGE}.{n}") for n in range(3)]
    listed = await api.agents.deployments.list(agent.id)
    assert [one.id for one in listed] == [one.id for one in reversed(made)]
    order = {"order_by": "created_at", "order_direction": "asc"}
    page = await api.agents.deployments.list(agent.id, limit=2, page_number=2, **order)
    assert [one.id for one in page] == [made[2].id]


async def check_promote(api):
    agent = await api.agent()
    made = await ready(api, agent)
    promoted = await api.agents.deployments.promote(made.id, agent_id=agent.id)
    has(promoted, id=made.id, is_production=True, status="Ready")
    assert promoted.promoted_at is not None
    assert (await api.agents.retrieve(agent.id)).production_deployment_id == made.id
    next_one = await ready(api, agent)
    await api.agents.deployments.promote(next_one.id, agent_id=agent.id)
    has(await api.agents.deployments.retrieve(made.id, agent_id=agent.id), is_production=False)
    # What serves cannot be taken away.
    gone = api.agents.deployments.delete(next_one.id, agent_id=agent.id)
    await raises(BadRequestError, gone)


async def check_preview_rpc(api):
    agent = await api.agent()
    made = await ready(api, agent)
    answer = await api.agents.deployments.preview_rpc(
        made.id, agent_id=agent.id, method="task/create", params={"name": fresh("preview")}, id=5
    )
    assert (answer.id, answer.error) == (5, None)
    assert isinstance(answer.result, Task)
    assert (await api.tasks.retrieve(answer.result.id)).name == answer.result.name


async def check_delete(api):
    agent = await api.agent()
    made = await api.agents.deployments.create(agent.id, docker_image=IMAGE)
    answer = await api.agents.deployments.delete(made.id, agent_id=agent.id)
    assert answer.id == made.id


async def check_unknown(api):
    agent, other = await api.agent(), await api.agent()
    made = await api.agents.deployments.create(agent.id, docker_image=IMAGE)
    await raises(NotFoundError, api.agents.deployments.retrieve(UNKNOWN_ID, agent_id=agent.id))
    await raises(NotFoundError, api.agents.deployments.retrieve(made.id, agent_id=other.id))
    await raises(NotFoundError, api.agents.deployments.promote(UNKNOWN_ID, agent_id=agent.id))
    await raises(NotFoundError, api.agents.deployments.delete(UNKNOWN_ID, agent_id=agent.id))


async def check_history(api):
    built = datetime(2026, 5, 1, 12, tzinfo=UTC)
    build = {
        "agent_commit": "0123456789abcdef0123456789abcdef01234567",
        "branch_name": "main",
        "author_name": "A. Author",
        "author_email": "a@example.org",
        "build_timestamp": built.isoformat(),
    }
    agent = await api.agent(registration_metadata=build)
    [entry] = await api.deployment_history.list(agent_id=agent.id)
    has(
        entry,
        agent_id=agent.id,
        commit_hash=build["agent_commit"],
        branch_name="main",
        author_name="A. Author",
        author_email="a@example.org",
        build_timestamp=built,
    )
    assert await api.deployment_history.retrieve(entry.id) == entry
    await api.agent(name=agent.name, registration_metadata={**build, "agent_commit": "f" * 40})
    both = await api.deployment_history.list(agent_name=agent.name, limit=10, order_direction="desc")
    assert [one.commit_hash for one in both] == ["f" * 40, build["agent_commit"]]


async def check_unknown_history(api):
    await raises(NotFoundError, api.deployment_history.retrieve(UNKNOWN_ID))
    await raises(BadRequestError, api.deployment_history.list())


async def ready(api, agent):
    """A deployment whose agent has registered."""
    made = await api.agents.deployments.create(agent.id, docker_image=IMAGE)
    await api.agent(name=agent.name, registration_metadata={"deployment_id": made.id})
    got = await api.agents.deployments.retrieve(made.id, agent_id=agent.id)
    has(got, status="Ready", acp_url=api.agent_url)
    return got
