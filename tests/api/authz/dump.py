"""All that the database holds of an account, to see that nothing of it changes."""

from __future__ import annotations

from agentex.database import rows
from agentex.resources import Resources

# What a request may leave although it has no effect.
BESIDES = frozenset({"alembic_version", "idempotency_keys", "stream_watches", "clocks", "audit_entries"})
LAST_USED = " - 'last_used_at'"

Dump = dict[str, list[str]]


async def dump(resources: Resources, account: str) -> Dump:
    """Each table's rows as JSON text: those of the account, or all of a table that names none."""
    async with resources.db.read() as session:
        tables = await rows(
            session,
            """
            SELECT c.relname AS name, EXISTS (
                SELECT FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attname = 'account_id') AS has_account
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'public' AND c.relkind = 'r' ORDER BY c.relname
            """,
        )
        found: Dump = {}
        for table in tables:
            if table["name"] in BESIDES:
                continue
            where = "WHERE t.account_id = :account" if table["has_account"] else "WHERE :account <> ''"
            lines = await rows(
                session,
                f"SELECT (to_jsonb(t){LAST_USED})::text AS line FROM {table['name']} t {where}",  # noqa: S608
                account=account,
            )
            found[table["name"]] = sorted(row["line"] for row in lines)
    return found


def changed(before: Dump, after: Dump) -> Dump:
    """What stands in one and not in the other, by table."""
    differs = {name: sorted(set(before[name]) ^ set(after[name])) for name in before}
    return {name: lines for name, lines in differs.items() if lines}
