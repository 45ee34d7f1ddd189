"""What the ledger of one schedule must look like, told from the rows' own times and from nothing else.

Each expectation is a comparison of times that the database wrote into a row, so none depends on how fast the
machine was: a slow one has other rows, and they follow the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tests.support.fault_stack import LedgerRow

MISSED = ("skipped", "missed")
DELIVERED = ("delivered", None)
# Opened, and not launched yet or on its way when the ledger was read.
_OPEN = ("due", "launching")


def instants(rows: Sequence[LedgerRow]) -> list[datetime]:
    """The instants of rows, in their order."""
    return [row.due_at for row in rows]


def every(seconds: int, first: datetime, last: datetime) -> list[datetime]:
    """Each instant of an interval from first to last, both of them instants of it."""
    count = round((last - first).total_seconds()) // seconds
    return [first + timedelta(seconds=seconds * place) for place in range(count + 1)]


def assert_one_row_each(rows: Sequence[LedgerRow], seconds: int) -> None:
    """No instant of the interval from the first row to the last lacks its row, and none has two."""
    assert instants(rows) == every(seconds, rows[0].due_at, rows[-1].due_at)


def assert_catch_up_rule(rows: Sequence[LedgerRow], late_after: timedelta) -> None:
    """Each row of one schedule stands as design.md §4 says: on time it runs, late only the newest does.

    Rows with the same opened_at were opened by one transaction, which judged them together; a launch judges
    them once more. Rows that a pause made are none of a tick's.
    """
    ticked = [row for row in rows if row.outcome != ("skipped", "paused")]
    for row in ticked:
        together = [other for other in ticked if other.opened_at == row.opened_at]
        if row.launched_at is None:
            _assert_opened(row, together, late_after)
        elif row.status not in _OPEN:
            _assert_launched(row, row.launched_at, ticked, late_after)


def _is_late_at_opening(row: LedgerRow, late_after: timedelta) -> bool:
    return row.due_at < row.opened_at - late_after


def _assert_opened(row: LedgerRow, together: Sequence[LedgerRow], late_after: timedelta) -> None:
    """A row that no launch has taken up: missed if something newer of its opening runs instead of it."""
    late = _is_late_at_opening(row, late_after)
    newer = any(other.due_at > row.due_at for other in together)
    assert row.outcome == (MISSED if late and newer else ("due", None)), row


def _assert_launched(
    row: LedgerRow, launched_at: datetime, rows: Sequence[LedgerRow], late_after: timedelta
) -> None:
    """A row that was to run, and how the launch that got to it judged it."""
    newer = [other for other in rows if other.due_at > row.due_at]
    together = [other for other in newer if other.opened_at == row.opened_at]
    # Late already when it was opened: then nothing newer was opened with it.
    assert not (_is_late_at_opening(row, late_after) and together), row
    if launched_at - row.due_at <= late_after:
        assert (row.outcome, row.cause) == (DELIVERED, "cadence"), row
        return
    assert row.cause == "catch_up", row
    if row.outcome == MISSED:
        # Something newer was there to run instead.
        assert any(other.opened_at < launched_at for other in newer), row
    else:
        # Nothing newer was opened with it, since that would have run instead.
        assert (row.outcome, together) == (DELIVERED, []), row
