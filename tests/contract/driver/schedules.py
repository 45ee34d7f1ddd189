"""agents.schedules.*: all sixteen methods, by id and by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agentex import BadRequestError, NotFoundError, UnprocessableEntityError

from calls import UNKNOWN_ID, fresh, has, plain, raises, until

INPUT = {"type": "text", "author": "user", "content": "Write the report"}
START = datetime(2027, 1, 1, tzinfo=UTC)
WHOLE = {
    "description": "on weekdays",
    "cron_expression": "30 9 * * 1-5",
    "timezone": "Europe/Berlin",
    "start_at": START,
    "end_at": START + timedelta(days=365),
    "task_params": {"depth": 2},
    "task_metadata": {"team": "a"},
    "initial_input": INPUT,
}


async def check_create_and_retrieve(api):
    agent = await api.agent()
    name = fresh("report")
    made = await api.agents.schedules.create(agent.id, name=name, paused=True, **WHOLE)
    has(
        made,
        agent_id=agent.id,
        name=name,
        paused=True,
        state="PAUSED",
        initial_input_method="event/send",
        interval_seconds=None,
        skipped_action_times=[],
        last_action_time=None,
        num_actions_taken=0,
        **WHOLE,
    )
    principal = plain(made.creator_principal)
    assert set(principal) >= {"account_id", "principal_type", "user_id", "service_account_id"}
    got = await api.agents.schedules.retrieve(made.id, agent_id=agent.id)
    by_name = await api.agents.schedules.retrieve_by_name(name, agent_id=agent.id)
    assert got.to_dict() == by_name.to_dict()
    has(got, id=made.id, name=name, created_at=made.created_at, **WHOLE)


async def check_next_action_times(api):
    agent = await api.agent("sync")
    made = await create(api, agent, cron_expression="0 9 * * *", timezone="America/New_York", start_at=START)
    has(made, initial_input_method="message/send", state="ACTIVE", timezone="America/New_York")
    assert made.next_action_times == [START.replace(day=day, hour=14) for day in range(1, 11)]


async def check_list(api):
    agent = await api.agent()
    made = [await create(api, agent) for _ in range(3)]
    listed = await api.agents.schedules.list(agent.id)
    assert [one.id for one in listed.run_schedules] == [one.id for one in reversed(made)]
    assert (listed.total, listed.run_schedules[0].live_data_available) == (3, None)
    few = await api.agents.schedules.list(agent.id, limit=1, include_live=True)
    assert [one.id for one in few.run_schedules] == [made[2].id]
    assert (few.total, few.run_schedules[0].live_data_available) == (3, True)


async def check_update(api):
    agent = await api.agent()
    made = await api.agents.schedules.create(agent.id, name=fresh("report"), **WHOLE)
    changed = await api.agents.schedules.update(
        made.id,
        agent_id=agent.id,
        interval_seconds=600,
        description=None,
        task_params={"depth": 3},
        initial_input={"content": "Other"},
    )
    expected = {"content": "Other", "type": "text", "author": "user"}
    has(
        changed,
        id=made.id,
        name=made.name,
        interval_seconds=600,
        cron_expression=None,
        description=None,
        task_params={"depth": 3},
        initial_input=expected,
        task_metadata=WHOLE["task_metadata"],
        start_at=WHOLE["start_at"],
    )


async def check_update_by_name(api):
    agent = await api.agent()
    made = await create(api, agent)
    new_name = fresh("renamed")
    changed = await api.agents.schedules.update_by_name(
        made.name, agent_id=agent.id, body_name=new_name, paused=True, task_metadata=None
    )
    has(changed, id=made.id, name=new_name, paused=True, state="PAUSED", task_metadata=None)
    await raises(NotFoundError, api.agents.schedules.retrieve_by_name(made.name, agent_id=agent.id))


async def check_pause_and_resume(api):
    agent = await api.agent()
    made = await create(api, agent)
    schedules, of = api.agents.schedules, {"agent_id": agent.id}
    has(await schedules.pause(made.id, **of, note="holiday"), id=made.id, paused=True, state="PAUSED")
    has(await schedules.pause(made.id, **of), paused=True)
    has(await schedules.resume(made.id, **of), paused=False, state="ACTIVE")
    has(await schedules.pause_by_name(made.name, **of), id=made.id, paused=True)
    has(await schedules.resume_by_name(made.name, **of, note="back"), id=made.id, paused=False)


async def check_skip_and_unskip(api):
    agent = await api.agent()
    made = await create(api, agent)
    first, second = made.next_action_times[:2]
    schedules, of = api.agents.schedules, {"agent_id": agent.id}
    skipped = await schedules.skip(made.id, **of, scheduled_time=first)
    has(skipped, skipped_action_times=[first])
    assert skipped.next_action_times[0] == second
    has(await schedules.skip(made.id, **of, scheduled_time=first), skipped_action_times=[first])
    back = await schedules.unskip(made.id, **of, scheduled_time=first)
    has(back, skipped_action_times=[])
    assert back.next_action_times[0] == first
    odd = schedules.skip(made.id, **of, scheduled_time=first + timedelta(seconds=1))
    await raises(BadRequestError, odd)


async def check_trigger(api):
    agent = await api.agent()
    made = await create(api, agent, paused=True)
    triggered = await api.agents.schedules.trigger(made.id, agent_id=agent.id)
    has(triggered, id=made.id, paused=True)
    again = await api.agents.schedules.trigger_by_name(made.name, agent_id=agent.id)
    has(again, id=made.id)

    async def fired():
        return [one for one in await api.tasks.list(agent_id=agent.id) if one.name is not None]

    async def both():
        found = await fired()
        return found if len(found) == 2 else None

    for task in await until(both, "two tasks"):
        assert task.name.startswith(f"scheduled-run:{made.id}:")
        metadata = task.task_metadata
        assert (metadata["schedule_id"], metadata["trigger_type"]) == (made.id, "manual")
        assert metadata["display_name"] == made.name
        [event] = await api.events.list(task_id=task.id, agent_id=agent.id)
        assert event.content.content == INPUT["content"]


async def check_delete(api):
    agent = await api.agent()
    first, second = await create(api, agent), await create(api, agent)
    answer = await api.agents.schedules.delete(first.id, agent_id=agent.id)
    assert (answer.id, answer.message != "") == (first.id, True)
    await api.agents.schedules.delete_by_name(second.name, agent_id=agent.id)
    assert (await api.agents.schedules.list(agent.id)).total == 0
    await raises(NotFoundError, api.agents.schedules.retrieve(first.id, agent_id=agent.id))
    # A name is free again.
    await create(api, agent, name=first.name)


async def check_bad_ones(api):
    agent, other = await api.agent(), await api.agent()
    made = await create(api, agent)
    duplicate = await raises(BadRequestError, create(api, agent, name=made.name))
    assert duplicate.body["message"] == f"Run schedule '{made.name}' already exists for agent '{agent.id}'"
    schedules = api.agents.schedules
    await raises(NotFoundError, schedules.retrieve(UNKNOWN_ID, agent_id=agent.id))
    await raises(NotFoundError, schedules.retrieve(made.id, agent_id=other.id))
    await raises(
        UnprocessableEntityError, create(api, agent, interval_seconds=60, cron_expression="* * * * *")
    )
    await raises(UnprocessableEntityError, create(api, agent, interval_seconds=0))
    await raises(UnprocessableEntityError, create(api, agent, cron_expression="61 * * * *"))
    await raises(UnprocessableEntityError, create(api, agent, timezone="Mars/Olympus"))
    update = schedules.update(made.id, agent_id=agent.id, interval_seconds=None)
    await raises(BadRequestError, update)


async def create(api, agent, **options):
    """A schedule of an hour, unless a cadence is given."""
    given = {"name": fresh("schedule"), "initial_input": {"content": INPUT["content"]}, **options}
    if not given.keys() & {"cron_expression", "interval_seconds"}:
        given["interval_seconds"] = 3600
    return await api.agents.schedules.create(agent.id, **given)
