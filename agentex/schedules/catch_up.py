"""The catch-up rule: what happens to an instant that nobody opened or launched in time.

Within AGENTEX_LATE_AFTER_SECONDS (30) of its instant a run is on time and simply runs. Of a schedule's later
ones only the newest runs, as cause catch_up, if it is less than AGENTEX_CATCH_UP_WITHIN_SECONDS (an hour)
late and no on-time one is opened with it; the others are skipped as missed. Instants that the user skipped
are no candidates. A stagger counts from where it puts the run.
"""

from __future__ import annotations

# Reads start_at: the instant plus the schedule's stagger.
LATE_SQL = "start_at < CAST(:now AS timestamptz) - make_interval(secs => :late_seconds)"

# Reads late, due_at, start_at and newest: the newest instant that the schedule owes and the user has not
# skipped. What is on time is newer than all that is late.
MISSED_SQL = (
    "late AND (due_at < newest "
    "OR start_at <= CAST(:now AS timestamptz) - make_interval(secs => :catch_up_seconds))"
)
