"""How long Postgres has been answering this process: what an outage has held up gets time to catch up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Answering:
    """The rounds of a sweep that Postgres has answered without a break, by the wall clock in seconds.

    A round that comes later than gap_seconds after the one before is a break as well: the process was
    stopped, or the machine slept, and with it the launches that renew their claims here.
    """

    gap_seconds: float
    _began: float = 0.0
    _failed: bool = False
    _since: float | None = None
    _ended: float = 0.0

    def begin(self, now: float) -> None:
        """A round begins."""
        self._began, self._failed = now, False

    def end(self, now: float) -> None:
        """The round has ended."""
        if self._failed:
            return
        if self.seconds(self._began) is None:
            self._since = self._began
        self._ended = now

    def fail(self) -> None:
        """Postgres did not answer in this round."""
        self._since, self._failed = None, True

    def seconds(self, now: float) -> float | None:
        """For how long it has answered; None when there was a break since the last round ended."""
        if self._since is None or now - self._ended > self.gap_seconds:
            return None
        return now - self._since
