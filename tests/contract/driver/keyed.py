"""The client where the server asks who calls: with the keys of an editor and of an agent."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from agentex import AuthenticationError, PermissionDeniedError

from calls import TEXT, Api, fresh, has, plain, raises, settle, until

INPUT = {"type": "text", "author": "user", "content": "Write the report"}
# Owned by the editor, who has registered it; and by itself, with a key that was made beforehand.
OF_EDITOR, OF_ITSELF = "sync-plain", "async-base"


def editor(api, **options):
    return Api(api.mode, api.client.base_url, "", api_key=os.environ["EDITOR_KEY"], **options)


def agent(api):
    headers = {"x-agent-api-key": os.environ["AGENT_KEY"]}
    return Api(api.mode, api.client.base_url, "", api_key=None, default_headers=headers)


async def check_without_a_key_nothing_opens(api):
    await raises(AuthenticationError, api.agents.list())
    nobody = Api(api.mode, api.client.base_url, "", api_key=None)
    error = await raises(AuthenticationError, nobody.agents.list())
    assert "an API key is missing" in error.message, error.message


async def check_a_key_opens_in_either_header(api):
    names = {OF_EDITOR, OF_ITSELF}
    assert {one.name for one in await editor(api).agents.list()} >= names
    headers = {"x-api-key": os.environ["EDITOR_KEY"]}
    other = Api(api.mode, api.client.base_url, "", api_key=None, default_headers=headers)
    assert {one.name for one in await other.agents.list()} >= names


async def check_a_talk_with_a_sync_agent(api):
    params = {"content": TEXT, "task_name": fresh("talk")}
    api = editor(api)
    answer = await api.agents.send_message(agent_name=OF_EDITOR, params=params, id=1)
    assert [one.content.type for one in answer.result] == ["text", "data"]
    task = await api.tasks.retrieve_by_name(params["task_name"])
    assert len(await api.messages.list(task_id=task.id)) == 3


async def check_a_talk_with_an_async_agent(api):
    api = editor(api)
    created = await api.agents.create_task(agent_name=OF_ITSELF, params={"name": fresh("talk")})
    task = created.result
    await api.agents.send_event(agent_name=OF_ITSELF, params={"task_id": task.id, "content": TEXT})

    async def said():
        found = await api.messages.list(task_id=task.id, order_by="created_at", order_direction="asc")
        return [one.content.content for one in found] if len(found) == 3 else None

    assert await until(said, "the answer") == [f"Hello from {OF_ITSELF}", "hi", "You said: hi"]
    mine = await api.messages.create(task_id=task.id, content=TEXT)
    has(await api.messages.retrieve(mine.id), task_id=task.id)
    answer = await api.agents.cancel_task(agent_name=OF_ITSELF, params={"task_id": task.id})
    has(answer.result, id=task.id, status="CANCELED")


async def check_an_agent_sees_its_own_tasks_only(api):
    sent = await editor(api).agents.send_message(agent_name=OF_EDITOR, params={"content": TEXT}, id=1)
    made = await editor(api).agents.create_task(agent_name=OF_ITSELF, params={"name": fresh("own")})
    own = await agent(api).tasks.list(limit=100)
    assert made.result.id in {one.id for one in own}
    assert sent.result[0].task_id not in {one.id for one in own}


async def check_a_schedule_of_an_editor_runs_under_the_editor(api):
    await _runs(editor(api), OF_EDITOR, {"principal_type": "user", "user_id": "eve"})


async def check_a_schedule_of_an_agent_runs_under_the_agent(api):
    await _runs(agent(api), OF_ITSELF, {"principal_type": "agent", "service_account_id": OF_ITSELF})


async def check_who_does_not_own_an_agent_does_not_delete_it(api):
    await raises(PermissionDeniedError, editor(api).agents.delete_by_name(OF_ITSELF))


async def _runs(api, name, creator):
    """A schedule fires, and its run is what its creator may do."""
    found = await api.agents.retrieve_by_name(name)
    start = datetime.now(UTC) + timedelta(seconds=2)
    window = {"start_at": start, "end_at": start + timedelta(seconds=4)}
    made = await api.agents.schedules.create(
        found.id, name=fresh("report"), interval_seconds=2, initial_input=INPUT, **window
    )
    assert plain(made.creator_principal).items() >= creator.items()

    async def ended():
        page = await settle(api.client.get(f"/runs?schedule_id={made.id}", cast_to=object))
        return [run for run in page["runs"] if run["finished_at"] is not None]

    run = (await until(ended, "the end of a run"))[-1]
    assert (run["status"], run["error"]) == ("succeeded" if name == OF_EDITOR else "delivered", None), run
    assert run["principal"].items() >= creator.items()
    task = await api.tasks.retrieve(run["task_id"])
    has(task, status="RUNNING")

    async def said():
        return len(await api.messages.list(task_id=task.id)) == 3 or None

    # A sync run keeps its input; its answer is the run's output.
    if name == OF_ITSELF:
        await until(said, "the answer")
    else:
        assert [one["type"] for one in run["output"]] == ["text", "data"]
