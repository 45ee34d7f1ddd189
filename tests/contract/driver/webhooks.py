"""webhooks.*: a trigger made in one call."""

from __future__ import annotations

from agentex import NotFoundError

from calls import fresh, has, raises


async def check_create_webhook_trigger(api):
    agent = await api.agent("sync")
    options = {"agent_name": agent.name, "forward_path": "github-pr/c1", "source": "github"}
    made = await api.webhooks.create_webhook_trigger(
        **options, name="owner/repository", base_url="https://agents.example.org"
    )
    path = f"/agents/forward/name/{agent.name}/github-pr/c1"
    has(
        made,
        agent_name=agent.name,
        name="owner/repository",
        source="github",
        webhook_path=path,
        webhook_url=f"https://agents.example.org{path}",
    )
    assert len(made.secret) >= 32
    own = await api.webhooks.create_webhook_trigger(**options, name="owner/other", secret="s" * 40)
    assert (own.secret, own.key_id != made.key_id) == ("s" * 40, True)


async def check_unknown(api):
    unknown = api.webhooks.create_webhook_trigger(
        agent_name=fresh("nobody"), forward_path="x", name="owner/repository"
    )
    await raises(NotFoundError, unknown)
