"""What an agent has been: a row each time that another commit begins to serve as it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from agentex.agents import service as agents
from agentex.auth.authorize import hidden_as
from agentex.auth.principal import Principal
from agentex.database import JsonObject, rows
from agentex.deployments.models import DeploymentHistory
from agentex.errors import BadRequest, NotFound
from agentex.ids import new_id, parse_id
from agentex.resources import RegisteredProcess, Resources

UNKNOWN = "N/A"
# The SDK's name first; then what builds say.
_COMMIT_KEYS = ("commit_sha", "commit_hash", "agent_commit")
# A year outside is no time of a build, and may be none that Postgres keeps.
_YEARS = range(1970, 10_000)


@dataclass(frozen=True)
class Commit:
    """What registration metadata says of the code that registers."""

    commit_hash: str
    branch_name: str
    author_name: str
    author_email: str
    build_timestamp: datetime | None


@dataclass(frozen=True)
class HistoryPage:
    """Which part of a history, in which order; pages count from 1."""

    limit: int
    page_number: int
    order_by: Literal["deployment_timestamp", "build_timestamp"]
    order_direction: Literal["asc", "desc"]


def commit_of(metadata: JsonObject | None) -> Commit | None:
    """The commit in registration metadata; None where there is none. What is no text counts as not said."""
    said = metadata or {}
    commit_hash = next((text for key in _COMMIT_KEYS if (text := _text(said, key))), None)
    if commit_hash is None:
        return None
    return Commit(
        commit_hash=commit_hash,
        branch_name=_text(said, "branch_name") or UNKNOWN,
        author_name=_text(said, "author_name") or UNKNOWN,
        author_email=_text(said, "author_email") or UNKNOWN,
        build_timestamp=_instant(_text(said, "build_timestamp")),
    )


async def note_registration(session: AsyncSession, process: RegisteredProcess) -> None:
    """A process has registered as the agent, in the transaction that has written the agent's row."""
    await note_commit(session, process.agent_id, process.metadata)


async def note_commit(session: AsyncSession, agent_id: UUID, metadata: JsonObject | None) -> None:
    """A row when this commit is another than the last one of the agent.

    The agent's row is locked by who calls this, so that two processes of one commit leave one row.
    """
    commit = commit_of(metadata)
    if commit is None:
        return
    await rows(
        session,
        """
        INSERT INTO deployment_history (id, account_id, agent_id, commit_hash, branch_name, author_name,
            author_email, build_timestamp, deployment_timestamp)
        SELECT :id, a.account_id, a.id, CAST(:commit_hash AS text), :branch_name, :author_name, :author_email,
            coalesce(CAST(:build_timestamp AS timestamptz), clock_timestamp()), clock_timestamp()
        FROM agents a
        LEFT JOIN LATERAL (
            SELECT commit_hash FROM deployment_history WHERE agent_id = a.id
            ORDER BY deployment_timestamp DESC, id DESC LIMIT 1) last ON true
        WHERE a.id = :agent_id AND last.commit_hash IS DISTINCT FROM CAST(:commit_hash AS text)
        """,
        id=new_id(),
        agent_id=agent_id,
        commit_hash=commit.commit_hash,
        branch_name=commit.branch_name,
        author_name=commit.author_name,
        author_email=commit.author_email,
        build_timestamp=commit.build_timestamp,
    )


async def list_page(
    session: AsyncSession,
    resources: Resources,
    principal: Principal,
    named: tuple[str | None, str | None],
    page: HistoryPage,
) -> list[DeploymentHistory]:
    """The history of the agent that is named by id or by name."""
    agent_id, agent_name = named
    if (agent_id is None) == (agent_name is None):
        raise BadRequest("give agent_id or agent_name, and not both")
    if agent_id is not None:
        agent = await agents.get(session, resources.authz, principal, agent_id)
    else:
        agent = await agents.get_by_name(session, resources.authz, principal, agent_name or "")
    keys = {
        "deployment_timestamp": col(DeploymentHistory.deployment_timestamp),
        "build_timestamp": col(DeploymentHistory.build_timestamp),
    }
    order = [keys[page.order_by], col(DeploymentHistory.id)]
    statement = (
        select(DeploymentHistory)
        .where(col(DeploymentHistory.agent_id) == agent.id)
        .order_by(*[c.desc() if page.order_direction == "desc" else c.asc() for c in order])
        .limit(page.limit)
        .offset((page.page_number - 1) * page.limit)
    )
    return list((await session.exec(statement)).all())


async def get(
    session: AsyncSession, resources: Resources, principal: Principal, history_id: str
) -> DeploymentHistory:
    """One row, for those who may read its agent."""
    statement = select(DeploymentHistory).where(
        col(DeploymentHistory.id) == parse_id(history_id, "deployment"),
        col(DeploymentHistory.account_id) == principal.account_id,
    )
    found = (await session.exec(statement)).one_or_none()
    absent = NotFound(f"deployment {history_id!r} not found")
    if found is None:
        raise absent
    with hidden_as(absent):
        await agents.get(session, resources.authz, principal, str(found.agent_id))
    return found


def _text(said: JsonObject, key: str) -> str | None:
    value = said.get(key)
    return value.strip()[:1_000] or None if isinstance(value, str) else None


def _instant(text: str | None) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text) if text else None
        # A naive one could be any time of the day.
        if instant is None or instant.tzinfo is None:
            return None
        utc = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return utc if utc.year in _YEARS else None
