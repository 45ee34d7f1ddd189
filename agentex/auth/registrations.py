"""What a remote authorizer has to be told: kept in the transaction that it is of, told after it.

Triggers write the rows (migration 0011), so that no path can make something that the authorizer is never
told of. Until it is told, it knows of nothing and denies: a resource is hidden for a while, never public. It
is told when somebody asks for the resource, and by the sweep. Twice is fine, and happens: two processes may
tell the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from sqlalchemy import RowMapping

from agentex.auth.authorize import Operation, ResourceType
from agentex.auth.models import RegistrationAction
from agentex.auth.principal import Principal
from agentex.auth.remote_calls import RemoteCalls
from agentex.database import Database, JsonObject, rows
from agentex.errors import AuthorizerUnavailable
from agentex.telemetry.metrics import REMOTE_AUTH_PENDING

log = logging.getLogger(__name__)

# Between two looks at what is there.
ROUND = 200
MAX_WAIT_SECONDS = 300
# One may be refused for what it is; so many say that the authorizer is away.
FAILURES_IN_A_ROW = 3
# What one has just made shows in one's lists: so many, before a list is worth more than its freshness.
OWN_ROUND = 20
MAX_ERROR_LENGTH = 300
# Longer than between a no and the look whether the authorizer knew enough to say it.
KEPT_SECONDS = 30
# How the maker of something has it: all that one may do who could make it.
MAKER = Operation.CREATE.value

_COLUMNS = """r.id, r.principal::text AS principal, r.resource_type, r.selector, r.action,
    r.parent_agent_id::text AS parent, r.told_at IS NOT NULL AS told"""
_FIRST = """r.told_at IS NULL AND NOT EXISTS (SELECT FROM registrations e
    WHERE e.selector = r.selector AND e.id < r.id AND e.told_at IS NULL)"""
_DUE_SQL = f"""
    SELECT {_COLUMNS} FROM registrations r WHERE r.next_attempt_at <= clock_timestamp() AND {_FIRST}
    ORDER BY r.id LIMIT :limit
"""
_OF_SELECTOR_SQL = f"SELECT {_COLUMNS} FROM registrations r WHERE r.selector = :selector ORDER BY r.id"
_OWN_SQL = f"""
    SELECT {_COLUMNS} FROM registrations r
    WHERE r.account_id = :account_id AND r.resource_type = :kind AND r.attempts = 0
        AND r.action = 'register' AND r.principal = CAST(:principal AS jsonb) AND {_FIRST}
    ORDER BY r.id DESC LIMIT :limit
"""
_FAILED_SQL = """
    UPDATE registrations SET attempts = attempts + 1, error = :error,
        next_attempt_at = clock_timestamp() + make_interval(secs => least(:max_wait, 2 ^ least(attempts, 16)))
    WHERE id = :id
"""


_TOLD_SQL = "UPDATE registrations SET told_at = clock_timestamp() WHERE id = :id"
_FORGET_SQL = """
    DELETE FROM registrations WHERE told_at < clock_timestamp() - make_interval(secs => :kept)
"""


class Registrations:
    """Tells the authorizer what it has not been told yet."""

    def __init__(self, db: Database, calls: RemoteCalls) -> None:
        self._db = db
        self._calls = calls

    async def settle(self, principal: Principal, selector: str) -> bool:
        """Tell what is open of a resource; returns whether anything was told just now: ask anew.

        When it cannot be told, a no to its maker is not the last word: AuthorizerUnavailable.
        """
        found = await rows(self._db, _OF_SELECTOR_SQL, selector=selector)
        try:
            for row in found:
                if not row["told"]:
                    await self._tell(row)
        except AuthorizerUnavailable:
            mine = principal.model_dump(mode="json")
            if any(json.loads(row["principal"]) == mine for row in found):
                raise
            return False
        return bool(found)

    async def settle_own(self, principal: Principal, kind: ResourceType) -> None:
        """Tell what the principal has just made of a type; what is left is told later."""
        found = await rows(
            self._db,
            _OWN_SQL,
            account_id=principal.account_id,
            kind=kind.value,
            principal=principal.model_dump_json(),
            limit=OWN_ROUND,
        )
        await self._tell_all(found)

    async def tell_pending(self) -> int:
        """Tell what is due, oldest first, until nothing is left or the authorizer does not answer."""
        told, answers = 0, True
        while answers and (found := await rows(self._db, _DUE_SQL, limit=ROUND)):
            done, answers = await self._tell_all(found)
            told += done
        await rows(self._db, _FORGET_SQL, kept=KEPT_SECONDS)
        left = await rows(self._db, "SELECT count(*) AS count FROM registrations WHERE told_at IS NULL")
        REMOTE_AUTH_PENDING.set(left[0]["count"])
        return told

    async def _tell_all(self, found: Sequence[RowMapping]) -> tuple[int, bool]:
        """How many were told, and whether it is of use to go on: not after several failures in a row."""
        told, failures = 0, 0
        for row in found:
            try:
                await self._tell(row)
                told, failures = told + 1, 0
            except AuthorizerUnavailable:
                failures += 1
            if failures == FAILURES_IN_A_ROW:
                return told, False
        return told, True

    async def _tell(self, row: RowMapping) -> None:
        principal: JsonObject = json.loads(row["principal"])
        resource = {"type": row["resource_type"], "selector": row["selector"]}
        action = RegistrationAction(row["action"])
        right: JsonObject = {"principal": principal, "resource": resource, "operation": MAKER}
        try:
            if action in {RegistrationAction.REVOKE, RegistrationAction.DEREGISTER}:
                await self._calls.tell("revoke", right)
            if action is RegistrationAction.DEREGISTER:
                await self._calls.tell("deregister", {"principal": principal, "resource": resource})
            if action is RegistrationAction.REGISTER:
                await self._calls.tell(
                    "register", {"principal": principal, "resource": resource, "parent": _parent(row)}
                )
            if action in {RegistrationAction.REGISTER, RegistrationAction.GRANT}:
                await self._calls.tell("grant", right)
        except AuthorizerUnavailable as error:
            await self._failed(row, error)
            raise
        await rows(self._db, _TOLD_SQL, id=row["id"])

    async def _failed(self, row: RowMapping, error: AuthorizerUnavailable) -> None:
        message = error.message[:MAX_ERROR_LENGTH]
        log.warning(
            "the authorizer is yet to be told of a resource",
            extra={"action": f"remote.{row['action']}", "selector": row["selector"], "error": message},
        )
        await rows(self._db, _FAILED_SQL, id=row["id"], error=message, max_wait=MAX_WAIT_SECONDS)


def _parent(row: RowMapping) -> JsonObject | None:
    agent_id = row["parent"]
    return {"type": ResourceType.AGENT.value, "selector": agent_id} if agent_id else None
