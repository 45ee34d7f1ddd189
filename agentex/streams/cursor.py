"""How far a reader has come: exact over late commits, updates and instants that callers give.

Rows carry no number of ours. A Postgres snapshot says which transactions it sees, and each row which one
wrote it last, so "what came after this snapshot" loses nothing and doubles nothing, whatever the order of the
commits. It rests on messages and tasks never being written inside a SAVEPOINT, whose rows carry an id of
their own; tests/style keeps that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from agentex.errors import InvalidInput

# With a thousand transactions open at once it has 20,000 characters; headers take 64 kB.
MAX_CURSOR_CHARACTERS = 24_000
_MAX_XID = 2**63 - 1
_SNAPSHOT = r"\d{1,19}:\d{1,19}:(?:\d{1,19}(?:,\d{1,19})*)?"
_CURSOR = re.compile(
    rf"(?P<seen>{_SNAPSHOT})(?:>(?P<target>{_SNAPSHOT})~(?P<xid>\d{{1,19}})\.(?P<row>[0-9a-f]{{32}}))?"
    r"(?:/(?P<redis>\d{1,20}-\d{1,20}))?"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions' rows are seen: all below xmin, and those below xmax that were not running."""

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """As `pg_current_snapshot()::text` writes it: `xmin:xmax:running,running`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Whether what this transaction wrote is seen."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"


# Sees no row at all.
NOTHING = Snapshot(0, 0)


@dataclass(frozen=True, slots=True)
class Part:
    """The way from one snapshot to the next, as far as this row; rows go by transaction, instant, id."""

    target: Snapshot
    xid: int
    row: UUID


@dataclass(frozen=True, slots=True)
class Cursor:
    """All that `seen` sees has come, and what `part` says of the next snapshot; in Redis, up to `redis`."""

    seen: Snapshot
    part: Part | None = None
    redis: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """A cursor as a client gives it back in Last-Event-ID. Raises InvalidInput."""
        found = _CURSOR.fullmatch(text) if len(text) <= MAX_CURSOR_CHARACTERS else None
        if found is None or any(int(number) > _MAX_XID for number in re.findall(r"\d{19}", found["seen"])):
            raise _not_ours(text)
        part = None
        if found["target"] is not None:
            part = Part(Snapshot.parse(found["target"]), int(found["xid"]), UUID(found["row"]))
            if max(part.xid, part.target.xmin, part.target.xmax, *part.target.running) > _MAX_XID:
                raise _not_ours(text)
        return cls(Snapshot.parse(found["seen"]), part, found["redis"])

    def __str__(self) -> str:
        part, redis = "", f"/{self.redis}" if self.redis else ""
        if self.part is not None:
            part = f">{self.part.target}~{self.part.xid}.{self.part.row.hex}"
        return f"{self.seen}{part}{redis}"


def _not_ours(text: str) -> InvalidInput:
    return InvalidInput(
        "Last-Event-ID",
        f"{text[:80]!r} is no id that this stream has given; send the id of its last event, or none at all",
    )


def check_known(cursor: Cursor, now: Snapshot) -> None:
    """Raises InvalidInput for a cursor of another database, or of this one before it was restored."""
    newest = cursor.part.target if cursor.part is not None else cursor.seen
    if newest.xmax > now.xmax:
        raise _not_ours(str(cursor))
