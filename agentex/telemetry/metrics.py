"""Every metric, declared once: name, unit, labels and the question it answers.

Each process serves its own: the API at /metrics of its port, a worker at /metrics of its worker port.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TICKS = Counter(
    "agentex_ticks", "Ticks that asked what is owed: does Temporal ring?", ["clock"]
)  # clock: minute | own
TICK_WAIT_SECONDS = Histogram(
    "agentex_tick_wait_seconds",
    "How long a tick waited for the database's clock to reach its instant: do the clocks agree?",
    buckets=(0.001, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
INSTANTS_OPENED = Counter(
    "agentex_instants_opened",
    "Rows that opening made, by who opened and as what: is each instant accounted for?",
    ["by", "outcome"],
)  # by: tick | sweep | attach | settle; outcome: due | a skip reason
CLOCKS_UNREADABLE = Counter(
    "agentex_clocks_unreadable",
    "Times that a clock's cadence could not be read, by who looked: do schedules stand still?",
    ["by"],
)  # by: tick | sweep | attach | settle
OPEN_SECONDS = Histogram(
    "agentex_open_seconds",
    "Time of one opening transaction: does the ledger keep up?",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LATENESS_SECONDS = Histogram(
    "agentex_lateness_seconds",
    "Due instant to delivery (the agent's acknowledgement, or its first answer): are runs on time?",
    ["lane"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 300, 3600),
)
RUNS_ENDED = Counter(
    "agentex_runs_ended",
    "Runs by how they ended, reason empty where there is none: what ran, what did not, and why?",
    ["status", "reason"],
)
RUNS_FORGOTTEN = Counter(
    "agentex_runs_forgotten", "Runs removed because they ended longer ago than runs are kept: how many?"
)
RUN_RETRIES = Counter(
    "agentex_run_retries", "Runs put back to be tried again: which agents are away?", ["why"]
)
AGENT_REQUESTS_IN_FLIGHT = Gauge(
    "agentex_agent_requests_in_flight",
    "Runs being carried to agents by this process, up to two for each place: is a lane full?",
    ["lane"],
)
AGENT_PROBES = Counter(
    "agentex_agent_probes", "Agents asked for their health, by result: do agents answer?", ["result"]
)  # result: answered | failed
AGENT_HEALTH_CHANGES = Counter(
    "agentex_agent_health_changes",
    "Agents that became Unhealthy, or Ready again, by health checks: are agents away?",
    ["status"],
)  # status: Unhealthy | Ready
SWEEP_LAST_ENDED_TIMESTAMP_SECONDS = Gauge(
    "agentex_sweep_last_ended_timestamp_seconds",
    "Unix time at which a sweep of this process last ended: is it alive?",
)
SWEEP_OPENED = Counter(
    "agentex_sweep_opened",
    "Rows the sweep had to open because no tick did: 0 in health, else Temporal is late",
)
SWEEP_REPAIRED = Counter(
    "agentex_sweep_repaired", "What the sweep repaired, by kind: is something lost now and then?", ["kind"]
)  # temporal_schedule_created | temporal_schedule_deleted | run_relaunched | run_stopped | claim_expired |
# clock_retired | clock_mended | message_send_settled
SWEEP_FAILURES = Counter("agentex_sweep_failures", "Sweeps that a fault ended early, by error", ["error"])
TEMPORAL_ERRORS = Counter(
    "agentex_temporal_errors", "Calls to Temporal that failed, by call: is it down?", ["call"]
)
AUDIT_ENTRIES_LOST = Counter(
    "agentex_audit_entries_lost",
    "Requests whose entry in the audit could not be written, so that only the log has it: is there a gap?",
)
REQUESTS = Counter(
    "agentex_requests",
    "HTTP requests answered, by route and status: who gets errors?",
    ["method", "route", "status"],
)
REQUEST_SECONDS = Histogram(
    "agentex_request_seconds",
    "Time to answer an HTTP request: is the API fast?",
    ["method", "route"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
RATE_LIMITED = Counter(
    "agentex_rate_limited", "Requests refused with 429, by whose rate: does somebody ask too often?", ["by"]
)  # by: address | principal
CONNECTIONS_CUT = Counter(
    "agentex_connections_cut",
    "Connections refused or closed by the edge, by why: are clients slow, or the limits too low?",
    ["reason"],
)  # reason: slow_head | slow_body | head_too_large | too_many | too_many_of_address
STREAMS_OPEN = Gauge("agentex_streams_open", "Streams that this process has open: is it near its limit?")
STREAMS_ENDED = Counter(
    "agentex_streams_ended", "Streams by why they ended: are readers too slow, or cut off?", ["reason"]
)  # task_ended | task_gone | fell_behind | client_left | shutdown | fault
STREAM_LISTENER_UP = Gauge(
    "agentex_stream_listener_up", "Whether Postgres tells this process what is new: 1 while streams are open"
)
STREAM_REDIS_UP = Gauge(
    "agentex_stream_redis_up", "Whether agents' token deltas can be read from Redis: 1 while streams are open"
)
STREAM_DELTAS = Counter("agentex_stream_deltas", "Updates read from Redis: do agents stream?")
OIDC_FETCHES = Counter(
    "agentex_oidc_fetches", "Looks for the issuer's keys, by outcome: can new ones be known?", ["outcome"]
)  # fetched | failed
REMOTE_AUTH_QUESTIONS = Counter(
    "agentex_remote_auth_questions",
    "Questions to the remote authorizer, by path and answer: does it answer?",
    ["path", "answer"],
)  # answer: the status, or unavailable
REMOTE_AUTH_PENDING = Gauge(
    "agentex_remote_auth_pending", "What the remote authorizer is yet to be told: is something held up?"
)
UNEXPECTED_ERRORS = Counter(
    "agentex_unexpected_errors",
    "Errors nobody foresaw, by where they surfaced: is there a fault of ours?",
    ["where"],
)
