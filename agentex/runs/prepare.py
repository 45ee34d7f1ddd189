"""From claimed runs to what is sent: definitions, permission, tasks, inputs; set-based for the whole page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlmodel import col, select

from agentex.agents.models import Agent, AgentStatus
from agentex.agents.service import address, wire_agent
from agentex.auth.authorize import Decision, Operation, ResourceRef, ResourceType, decide_later
from agentex.auth.principal import Principal
from agentex.database import JsonObject, rows
from agentex.errors import AgentNotDeployed, AuthorizerUnavailable, SecretUnreadable
from agentex.events.bulk import NewEvent, ensure_events
from agentex.events.service import wire_event
from agentex.executors.base import Delivery, Executor
from agentex.executors.registry import executor_for
from agentex.ids import delivery_key, fire_id, run_event_id, run_message_id, run_task_id, scheduled_task_name
from agentex.messages.bulk import NewMessage, ensure_messages
from agentex.resources import Definition, GoneCreator, Resources
from agentex.runs.claims import Claimed
from agentex.runs.finish import Outcome, outcome_of_skip, outcome_of_wait
from agentex.runs.models import RunCause, RunReason, RunStatus
from agentex.tasks.bulk import NewTask, OwnedTask, ensure_tasks
from agentex.tasks.models import OPEN_STATUSES
from agentex.tasks.service import wire_task

# In a run's error it stands behind what went wrong with the run itself.
MAX_HEALTH_LENGTH = 300


@dataclass(frozen=True)
class Prepared:
    """A run that may be sent, with all that it sends."""

    run: Claimed
    definition: Definition
    executor: Executor
    delivery: Delivery
    # Whose its task is.
    task_owner: str
    # Why health checks call its agent Unhealthy, which is no reason not to send; None where they do not.
    agent_health: str | None = None


@dataclass(frozen=True)
class _Wanted:
    """A run whose definition and agent are there."""

    run: Claimed
    definition: Definition
    agent: Agent
    executor: Executor


@dataclass
class _Refused:
    """What is not allowed, of one launch: what becomes of those runs, and which creators are gone."""

    token: UUID
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    gone: list[GoneCreator] = field(default_factory=list[GoneCreator])

    def add(self, run: Claimed, answer: Decision) -> None:
        """A run that was denied."""
        self.outcomes.append(outcome_of_skip(run, self.token, RunReason.DENIED, answer.rule))
        if answer.gone and run.definition is not None:
            self.gone.append(GoneCreator(run.definition.schedule_id, run.principal))

    def wait(self, run: Claimed, definition: Definition, error: AuthorizerUnavailable) -> None:
        """A run of which nobody can say now whether it is allowed."""
        self.outcomes.append(outcome_of_wait(run, self.token, definition, error.message))


async def prepare(
    resources: Resources, claimed: Sequence[Claimed], token: UUID, writing: asyncio.Lock
) -> tuple[list[Prepared], list[Outcome]]:
    """What to send, and the outcomes of the runs that are not to be sent. No network inside a transaction.

    `writing` is held while rows are written, and while nobody outside is asked.
    """
    wanted, unwanted = await _wanted(resources, claimed, token)
    refused = _Refused(token)
    allowed = await _authorized(resources, wanted, refused)
    agents = {item.agent.id: item.agent for item in allowed}
    described = {agent_id: wire_agent(agent) for agent_id, agent in agents.items()}
    async with writing:
        written = await _write_rows(resources, allowed)
        deliveries = [_prepared(item, described[item.agent.id], written) for item in written.items]
    if resources.authz.knows_tasks:
        deliveries = await _authorized_tasks(resources, deliveries, refused)
    if refused.gone and resources.hooks.creators_gone is not None:
        # Before the runs are recorded: a process that dies in between finds out again.
        await resources.hooks.creators_gone(resources, refused.gone)
    taken = [_taken(item, token) for item in allowed if item not in written.items]
    closed = [item for item in deliveries if item.delivery.task["status"] not in OPEN_STATUSES]
    ended = [
        Outcome(item.run.id, token, RunStatus.CANCELED, error="its task was closed before the input was sent")
        for item in closed
    ]
    unsent = [*unwanted, *refused.outcomes, *taken, *ended]
    return [item for item in deliveries if item not in closed], unsent


async def _wanted(
    resources: Resources, claimed: Sequence[Claimed], token: UUID
) -> tuple[list[_Wanted], list[Outcome]]:
    references = {run.definition for run in claimed if run.definition is not None}
    if resources.hooks.definitions is None:
        raise RuntimeError("no slice has registered definitions: app.py and worker.py fill the hooks")
    async with resources.db.read() as session:
        definitions = await resources.hooks.definitions(session, sorted(references, key=str))
        statement = select(Agent).where(col(Agent.id).in_({run.agent_id for run in claimed}))
        agents = {agent.id: agent for agent in (await session.exec(statement)).all()}
    executors = {
        agent.id: executor_for(agent.acp_type, resources.acp, resources.settings) for agent in agents.values()
    }
    wanted: list[_Wanted] = []
    outcomes: list[Outcome] = []
    for run in claimed:
        definition = definitions.get(run.definition) if run.definition else None
        outcome = _unwanted(run, token, definition, agents.get(run.agent_id))
        if outcome is not None:
            outcomes.append(outcome)
        elif definition is not None:
            item = _Wanted(run, definition, agents[run.agent_id], executors[run.agent_id])
            unreadable = _key_unreadable(resources, item, token)
            if unreadable is not None:
                outcomes.append(unreadable)
            else:
                wanted.append(item)
    return wanted, outcomes


def _key_unreadable(resources: Resources, item: _Wanted, token: UUID) -> Outcome | None:
    """Wait where this process cannot read the agent's key: with the right AGENTEX_SECRET_KEY one can."""
    try:
        resources.acp.check_key(item.agent.sealed_key)
    except SecretUnreadable as error:
        return outcome_of_wait(item.run, token, item.definition, error.message)
    return None


def _unwanted(
    run: Claimed, token: UUID, definition: Definition | None, agent: Agent | None
) -> Outcome | None:
    if run.cancel_requested:
        return Outcome(run.id, token, RunStatus.CANCELED)
    if run.missed:
        return outcome_of_skip(run, token, RunReason.MISSED)
    if definition is None:
        message = "the definition that this run was opened with is not in the database"
        return Outcome(run.id, token, RunStatus.FAILED, RunReason.OURS, message)
    if definition.deleted:
        return outcome_of_skip(run, token, RunReason.SCHEDULE_DELETED)
    if agent is None or agent.deleted_at is not None:
        return outcome_of_skip(run, token, RunReason.AGENT_DELETED)
    try:
        address(agent)
    except AgentNotDeployed as error:
        return Outcome(run.id, token, RunStatus.FAILED, RunReason.CONFIGURATION, error.message)
    return None


async def _authorized(resources: Resources, wanted: Sequence[_Wanted], refused: _Refused) -> list[_Wanted]:
    """agent.execute and task.create, asked once per creator and agent in the page (wire.md §3)."""
    answers: dict[tuple[Principal, UUID], Decision | AuthorizerUnavailable] = {}
    allowed: list[_Wanted] = []
    for item in wanted:
        key = (item.run.principal, item.agent.id)
        if key not in answers:
            answers[key] = await _decide(resources, item)
        answer = answers[key]
        if isinstance(answer, AuthorizerUnavailable):
            refused.wait(item.run, item.definition, answer)
        elif answer.allowed:
            allowed.append(item)
        else:
            refused.add(item.run, answer)
    return allowed


async def _decide(resources: Resources, item: _Wanted) -> Decision | AuthorizerUnavailable:
    account = item.agent.account_id
    agent = ResourceRef(ResourceType.AGENT, str(item.agent.id), account, item.agent.owner)
    any_task = ResourceRef(ResourceType.TASK, "*", account)
    decision = Decision(allowed=True, rule="nothing asked")
    try:
        async with resources.db.read() as session:
            for operation, resource in ((Operation.EXECUTE, agent), (Operation.CREATE, any_task)):
                decision = await decide_later(
                    resources.authz, session, item.run.principal, operation, resource
                )
                if not decision.allowed:
                    return replace(decision, rule=f"{resource.type}.{operation} is denied: {decision.rule}")
    except AuthorizerUnavailable as error:
        return error
    return decision


async def _authorized_tasks(
    resources: Resources, deliveries: Sequence[Prepared], refused: _Refused
) -> list[Prepared]:
    """task.update of each task, for a provider that knows tasks."""
    allowed: list[Prepared] = []
    for item in deliveries:
        task = ResourceRef(ResourceType.TASK, item.delivery.task["id"], item.run.account_id, item.task_owner)
        try:
            async with resources.db.read() as session:
                decision = await decide_later(
                    resources.authz, session, item.run.principal, Operation.UPDATE, task
                )
        except AuthorizerUnavailable as error:
            refused.wait(item.run, item.definition, error)
            continue
        if decision.allowed:
            allowed.append(item)
        else:
            refused.add(item.run, replace(decision, rule=f"task.update is denied: {decision.rule}"))
    return allowed


@dataclass(frozen=True)
class _Written:
    """Runs that have their task; tasks by name, and wire events by delivery key."""

    items: Sequence[_Wanted]
    tasks: Mapping[str, OwnedTask]
    events: Mapping[str, JsonObject]


async def _write_rows(resources: Resources, allowed: Sequence[_Wanted]) -> _Written:
    """The rows stand before anything is sent. A run whose task's name somebody else has taken is left out."""
    if not allowed:
        return _Written([], {}, {})
    async with resources.db.begin() as session:
        tasks = await ensure_tasks(session, [_new_task(item) for item in allowed])
        # Who knows the schedule can foretell the name: what was made under it beforehand gets no input.
        items = [item for item in allowed if tasks[_task_name(item.run)].task.id == run_task_id(item.run.id)]
        of_run = {item.run.id: run_task_id(item.run.id) for item in items}
        asynchronous = [item for item in items if item.executor.opens_task]
        synchronous = [item for item in items if not item.executor.opens_task]
        events = await ensure_events(
            session,
            [
                NewEvent(
                    run_event_id(item.run.id),
                    item.run.account_id,
                    of_run[item.run.id],
                    item.agent.id,
                    _content(item.definition),
                    delivery_key(item.run.id),
                )
                for item in asynchronous
            ],
        )
        await ensure_messages(
            session,
            [
                NewMessage(
                    run_message_id(item.run.id, 0),
                    item.run.account_id,
                    of_run[item.run.id],
                    _content(item.definition),
                )
                for item in synchronous
            ],
        )
        await rows(
            session,
            """
            UPDATE runs r SET task_id = t.task_id
            FROM unnest(CAST(:runs AS uuid[]), CAST(:tasks AS uuid[])) AS t (run_id, task_id)
            WHERE r.id = t.run_id AND r.task_id IS NULL
            """,
            runs=list(of_run),
            tasks=list(of_run.values()),
        )
    return _Written(items, tasks, {key: wire_event(event) for key, event in events.items()})


def _taken(item: _Wanted, token: UUID) -> Outcome:
    error = f"there is a task {_task_name(item.run)!r} already, which is not this run's"
    return Outcome(item.run.id, token, RunStatus.FAILED, RunReason.CONFIGURATION, error)


def _prepared(item: _Wanted, agent: JsonObject, written: _Written) -> Prepared:
    owned = written.tasks[_task_name(item.run)]
    delivery = Delivery(
        run_id=item.run.id,
        acp_url=address(item.agent),
        agent=agent,
        task=wire_task(owned.task),
        content=_content(item.definition),
        event=written.events.get(delivery_key(item.run.id)),
        sealed_key=item.agent.sealed_key,
    )
    unhealthy = item.agent.status is AgentStatus.UNHEALTHY
    health = (item.agent.status_reason or "")[:MAX_HEALTH_LENGTH] if unhealthy else None
    return Prepared(item.run, item.definition, item.executor, delivery, owned.owner, health)


def _task_name(run: Claimed) -> str:
    if run.definition is None:
        raise ValueError(f"run {run.id} has no schedule to name its task after")
    return scheduled_task_name(run.definition.schedule_id, run.fire_id)


def _new_task(item: _Wanted) -> NewTask:
    run, definition = item.run, item.definition
    metadata = {
        "display_name": definition.name,
        **(definition.task_metadata or {}),
        "schedule_id": str(run.definition.schedule_id) if run.definition else None,
        "scheduled_fire_id": run.fire_id,
        "trigger_type": "manual" if run.cause == RunCause.MANUAL else "scheduled",
        "fire_time": fire_id(run.due_at),
    }
    return NewTask(
        id=run_task_id(run.id),
        account_id=run.account_id,
        owner=run.principal.creator,
        agent_id=item.agent.id,
        name=_task_name(run),
        params=definition.task_params,
        task_metadata=metadata,
    )


def _content(definition: Definition) -> JsonObject:
    """The input as a text content, complete as the agents' SDK sends it (wire.md §1a)."""
    return {
        "type": definition.input["type"],
        "author": definition.input["author"],
        "style": "static",
        "format": "plain",
        "content": definition.input["content"],
        "attachments": None,
    }
