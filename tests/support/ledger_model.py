"""What schedules owe and how it must stand in the ledger, told in Python: no database, no code of ours.

An instant is owed when the clock passes it while its schedule is attached and the instant is inside the
window. What becomes of it is decided later, by whoever gets to it first: a tick, or a change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

LATE_AFTER = timedelta(seconds=30)
CATCH_UP_WITHIN = timedelta(hours=1)
ACTIVE_AFTER = timedelta(seconds=1)

# How a run stands: its cause, its status and its reason.
Outcome = tuple[str, str, str | None]


@dataclass(frozen=True)
class Every:
    """A cadence whose instants a child could tell: each `period` seconds, `offset` after the epoch's."""

    period: int
    offset: int = 0
    cron: str | None = None

    @property
    def keys(self) -> dict[str, object]:
        """How a caller writes it."""
        return {"cron_expression": self.cron} if self.cron else {"interval_seconds": self.period}

    def between(self, after: datetime, until: datetime) -> list[datetime]:
        """The instants with after < t <= until."""
        place = (int(after.timestamp()) - self.offset) // self.period + 1
        found: list[datetime] = []
        while (second := place * self.period + self.offset) <= until.timestamp():
            found.append(datetime.fromtimestamp(second, tz=UTC))
            place += 1
        return found


@dataclass(frozen=True)
class Window:
    """From when to when a schedule owes instants, both ends included."""

    start_at: datetime | None = None
    end_at: datetime | None = None

    @property
    def keys(self) -> dict[str, str | None]:
        """How a caller writes it."""
        return {
            "start_at": self.start_at.isoformat() if self.start_at else None,
            "end_at": self.end_at.isoformat() if self.end_at else None,
        }

    def has(self, instant: datetime) -> bool:
        """Whether the instant is inside."""
        begun = self.start_at is None or instant >= self.start_at
        return begun and (self.end_at is None or instant <= self.end_at)

    def is_possible(self, cadence: Every, since: datetime) -> bool:
        """Whether the cadence has an instant inside after a moment: what has none is refused."""
        if self.start_at and self.end_at and self.end_at <= self.start_at:
            return False
        after = max(since, self.start_at - timedelta(seconds=1)) if self.start_at else since
        until = self.end_at or after + timedelta(seconds=2 * cadence.period)
        return any(self.has(instant) for instant in cadence.between(after, until))


@dataclass
class Owing:
    """One schedule: its definition, what it owes that has no row yet, and the rows that it must have.

    `unseen` is what it owes that ticks may have passed before its attachment was committed. `reached` is what
    it did not owe when the clock passed it and a wider window has in it now: a row of it may be there, for a
    change of a window reaches back as far as no tick has been. `may` and `must`
    are what the step under way may make of instants, and which of them it must not leave without a row.
    """

    cadence: Every
    window: Window
    # None while it is paused, and when it is deleted.
    active_from: datetime | None
    # The clock has been followed until here.
    seen_until: datetime
    created_at: datetime
    changed_at: datetime
    deleted: bool = False
    skips: set[datetime] = field(default_factory=set[datetime])
    owed: set[datetime] = field(default_factory=set[datetime])
    unseen: set[datetime] = field(default_factory=set[datetime])
    reached: set[datetime] = field(default_factory=set[datetime])
    rows: dict[datetime, Outcome] = field(default_factory=dict[datetime, Outcome])
    may: dict[datetime, set[Outcome]] = field(default_factory=dict[datetime, set[Outcome]])
    must: set[datetime] = field(default_factory=set[datetime])

    def pass_time(self, now: datetime) -> None:
        """Owe what the clock has passed until now."""
        if self.active_from is not None:
            passed = self.cadence.between(max(self.seen_until, self.active_from), now)
            self.owed |= {instant for instant in passed if self.window.has(instant)}
        self.seen_until = now

    def activate(self, began: datetime, now: datetime, *, after: timedelta = ACTIVE_AFTER) -> None:
        """Attach it by a transaction that read the clock when it began, and is committed now."""
        self.active_from = began + after
        self.seen_until = began
        before = set(self.owed)
        self.pass_time(now)
        self.unseen |= self.owed - before

    def coming(self, now: datetime, count: int) -> list[datetime]:
        """Its next instants, skipped ones too."""
        found = self.cadence.between(now, now + timedelta(seconds=count * self.cadence.period))
        return [instant for instant in found if self.window.has(instant)]

    def expect_opened(self, now: datetime, *, must: bool) -> None:
        """A tick or the sweep opens what is owed; what is unseen is left to the sweep's look."""
        for among in (self.owed, self.owed | self.reached):
            self._allow(self._decided(among, now))
        if must:
            self.must |= self.owed - self.unseen

    def expect_looked_at(self, now: datetime) -> None:
        """The look opens what ticks have passed unseen, and judges it with or without the rest.

        Ticks may have come to any of the unseen: what is behind them the next one opens, by itself.
        """
        looked_at = self.unseen | self.reached
        passed = [{other for other in self.unseen if other <= instant} for instant in self.unseen]
        for among in (*passed, self.unseen, looked_at, self.owed, self.owed | self.reached):
            decided = self._decided(among, now)
            self._allow({instant: decided[instant] for instant in decided.keys() & looked_at})
        self.unseen = set()

    def expect_settled(self, reason: str) -> None:
        """A change ends what it owes: all of it gets skipped rows."""
        self._expect_settled(reason, self.owed, self.reached)
        self.reached = set()

    def expect_window(self, window: Window) -> None:
        """What falls out of the new window gets skipped rows."""
        owed, reached = ({i for i in instants if not window.has(i)} for instants in (self.owed, self.reached))
        self._expect_settled("definition_changed", owed, reached)

    def change_window(self, window: Window, now: datetime) -> None:
        """From now on; what it has in it of the past is not owed for that."""
        self.window, self.changed_at = window, now
        if self.active_from is not None:
            passed = {i for i in self.cadence.between(self.active_from, now) if window.has(i)}
            self.reached = passed - self.owed - self.rows.keys()

    def _expect_settled(
        self, reason: str, instants: Collection[datetime], perhaps: Collection[datetime]
    ) -> None:
        for instant in (*instants, *perhaps):
            own = "skipped_by_user" if instant in self.skips else reason
            self._allow({instant: ("cadence", "skipped", own)})
        self.must |= set(instants)
        self.unseen -= set(instants)

    def _allow(self, outcomes: Mapping[datetime, Outcome]) -> None:
        for instant, outcome in outcomes.items():
            self.may.setdefault(instant, set()).add(outcome)

    def compare(self, found: list[tuple[datetime, Outcome]]) -> None:
        """Hold the rows that there are against those there must be; take the new ones over."""
        instants = [instant for instant, _ in found]
        assert len(instants) == len(set(instants)), f"an instant has two rows: {found}"
        rows = dict(found)
        assert {instant: rows.get(instant) for instant in self.rows} == self.rows, "a row has changed"
        new = {instant: outcome for instant, outcome in rows.items() if instant not in self.rows}
        wrong = {
            i: (outcome, self.may.get(i)) for i, outcome in new.items() if outcome not in self.may.get(i, ())
        }
        assert wrong == {}, f"rows that nobody owes, or that stand otherwise than they must: {wrong}"
        lacking = sorted(self.must - rows.keys())
        assert lacking == [], f"owed instants have no row: {lacking} of {self.window} from {self.active_from}"
        self.rows |= new
        self.owed -= new.keys()
        self.unseen -= new.keys()
        self.reached -= new.keys()
        self.may, self.must = {}, set()

    def _decided(self, owed: Collection[datetime], now: datetime) -> dict[datetime, Outcome]:
        newest = max((instant for instant in owed if instant not in self.skips), default=None)
        return {instant: self._decide(instant, newest, now) for instant in owed}

    def _decide(self, instant: datetime, newest: datetime | None, now: datetime) -> Outcome:
        if instant in self.skips:
            return "cadence", "skipped", "skipped_by_user"
        if now - instant <= LATE_AFTER:
            return "cadence", "due", None
        if instant == newest and now - instant < CATCH_UP_WITHIN:
            return "catch_up", "due", None
        return "cadence", "skipped", "missed"
