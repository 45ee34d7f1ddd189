"""How Postgres carries a statement out: which indexes it uses, and how many rows it looks at."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection

from agentex.database import rows
from agentex.resources import Resources

# A statement as it goes to the driver, and its parameters.
Sent = tuple[str, tuple[Any, ...]]
EXPLAIN = "EXPLAIN (ANALYZE, FORMAT JSON) "


@dataclass(frozen=True)
class Plan:
    """The steps of a plan that was carried out."""

    steps: list[dict[str, Any]]

    def indexes_of(self, table: str) -> set[str]:
        """The indexes by which it looks at the table; '' where it looks at all of it."""
        scans = self._scans(table)
        parts = [
            part
            for scan in scans
            for part in (_tree(scan) if scan["Node Type"].startswith("Bitmap") else [scan])
        ]
        return {part["Index Name"] for part in parts if "Index Name" in part} or {""}

    def most_of(self, table: str) -> float:
        """The most rows of the table that one of its steps has looked at."""
        return max(scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) for scan in self._scans(table))

    def _scans(self, table: str) -> list[dict[str, Any]]:
        return [
            step for step in self.steps if step.get("Relation Name") == table and "Scan" in step["Node Type"]
        ]


def _tree(step: dict[str, Any]) -> list[dict[str, Any]]:
    return [step, *(inner for child in step.get("Plans", []) for inner in _tree(child))]


def _plan(value: Any) -> Plan:
    parsed = json.loads(value) if isinstance(value, str) else value
    return Plan(_tree(parsed[0]["Plan"]))


async def explain(resources: Resources, sql: str, **parameters: object) -> Plan:
    """The plan of a textual statement, which is carried out."""
    async with resources.db.begin() as session:
        found = await rows(session, EXPLAIN + sql, **parameters)
        return _plan(next(iter(found[0].values())))


async def explain_sent(resources: Resources, sent: Sent) -> Plan:
    """The plan of a statement that was sent before, which is carried out again."""
    async with resources.db.begin() as session:
        connection = await session.connection()
        result = await connection.exec_driver_sql(EXPLAIN + sent[0], sent[1])
        return _plan(result.scalar_one())


@contextmanager
def statements(resources: Resources) -> Generator[list[Sent]]:
    """What is sent to the database meanwhile."""
    sent: list[Sent] = []

    def note(_: Connection, __: object, statement: str, parameters: tuple[Any, ...], *___: object) -> None:
        sent.append((statement, parameters))

    engine = resources.db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
