"""What a caller may see, as a condition of a list's own query: never after its page is cut."""

from __future__ import annotations

from sqlalchemy import ColumnElement, text, true
from sqlalchemy.sql.expression import TextClause

from agentex.auth.authorize import EVERYTHING, Visible


def seen_by(visible: Visible, **columns: str) -> ColumnElement[bool]:
    """The rows of a table with these columns that are visible: seen_by(seen, id="t.id", owner="t.owner")."""
    if visible == EVERYTHING:
        return true()
    return _clause(visible.where(**columns), visible)


def seen_apart(visible: Visible, **columns: str) -> list[ColumnElement[bool]]:
    """The same as conditions that are each served by an index of its own, which their OR is not."""
    if visible == EVERYTHING:
        return [true()]
    return [_clause(sql, visible) for sql in visible.apart(**columns)]


def creator_of(column: str) -> str:
    """SQL of Principal.creator for a column that holds one, for the owner of what has it as JSON only."""
    user, account = (f"nullif({column}->>'{name}', '')" for name in ("user_id", "service_account_id"))
    guessed = f"CASE WHEN {user} IS NULL THEN 'service_account' ELSE 'user' END"
    kind = f"coalesce({column}->>'principal_type', {guessed})"
    return f"({kind} || ':' || coalesce({user}, {account}))"


def seen_through_tasks(visible: Visible, task_id: str, *, owner: str | None = None) -> ColumnElement[bool]:
    """The rows of a table that hang on a visible task by this column.

    With `owner`, also those that hang on none and are visible by an owner of their own.
    """
    if visible == EVERYTHING:
        return true()
    seen = visible.where(id="t.id", owner="t.owner", agent_id="t.agent_id")
    # All but the values are columns of ours.
    sql = f"EXISTS (SELECT FROM tasks t WHERE t.id = {task_id} AND {seen})"
    if owner is not None:
        sql = f"({sql} OR {task_id} IS NULL AND {visible.where(owner=owner)})"
    return _clause(sql, visible)


def _clause(sql: str, visible: Visible) -> ColumnElement[bool]:
    named = {name: value for name, value in visible.parameters.items() if f":{name}" in sql}
    clause: TextClause = text(sql).bindparams(**named)
    # A textual condition is one, which its class does not say.
    return clause  # pyright: ignore[reportReturnType]
