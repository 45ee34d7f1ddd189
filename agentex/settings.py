"""Settings, read from the environment (prefix AGENTEX_); units stand in the names."""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
from enum import StrEnum
from functools import cached_property
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from agentex import database_tls
from agentex.addresses import is_base_url, is_loopback
from agentex.auth_settings import AuthSettings
from agentex.edge_settings import EdgeSettings


class WorkerQueue(StrEnum):
    """A task queue with slots of its own, so that slow answers never starve a tick."""

    TICKS = "ticks"
    DELIVER = "deliver"
    ANSWERS = "answers"


class Auth(StrEnum):
    """Who says who calls; a file each under auth/providers."""

    NONE = "none"
    API_KEYS = "api_keys"
    OIDC = "oidc"
    REMOTE = "remote"


# Each of them means TLS; the key too, for it must not travel in the clear.
_TLS_SETTINGS = (
    "temporal_tls_ca_file",
    "temporal_tls_cert_file",
    "temporal_tls_key_file",
    "temporal_tls_server_name",
    "temporal_api_key",
)
_REDIS_URL = re.compile(r"(rediss?://[^\s/]+|unix://\S)")
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:/@\[\]]+):[0-9]{1,5}")


_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]")
# How a container is known from inside: Docker, Podman, Kubernetes.
_CONTAINER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))
_KUBERNETES = "KUBERNETES_SERVICE_HOST"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# A machine of one's own, and what stands beside it: loopback, RFC 1918 and RFC 4193.
LOCAL_NETWORKS = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"


# What Fernet takes.
SECRET_KEY_BYTES = 32


def _urlsafe(key: str) -> str:
    return key.translate(str.maketrans("+/", "-_"))


def _key_bytes(key: str) -> int:
    try:
        return len(base64.b64decode(key, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return 0


def _variable(name: str) -> str:
    return f"AGENTEX_{name.upper()}"


def in_container() -> bool:
    """Whether this process runs in a container, where 127.0.0.1 is not the machine that agents run on."""
    return _KUBERNETES in os.environ or any(path.exists() for path in _CONTAINER_FILES)


def default_host_rewrites() -> dict[str, str]:
    """What AGENTEX_AGENT_HOST_REWRITES is unless it is set."""
    return {} if in_container() else {"host.docker.internal": "127.0.0.1"}


def _networks(value: str) -> tuple[Network, ...]:
    return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())


def default_agent_networks(auth: str) -> tuple[Network, ...]:
    """What AGENTEX_AGENT_NETWORKS is unless it is set: where all may register, it is one's own machine."""
    return _networks(LOCAL_NETWORKS) if auth == "none" else ()


class Settings(AuthSettings, EdgeSettings):
    """One process's settings. Every field is an environment variable, e.g. AGENTEX_PORT."""

    model_config = SettingsConfigDict(env_prefix="AGENTEX_", extra="ignore", frozen=True)

    database_url: str = "postgresql://127.0.0.1:5432/agentex"
    # One process: 10 requests at once each need one connection for ~2 ms; the rest is for the worker's pages.
    database_pool_size: PositiveInt = 20
    # What goes beyond the pool is closed as soon as it is given back: 32 requests in flight then spent a
    # third of their time on new connections (380 messages a second instead of 730).
    database_max_overflow: int = 0
    # A request that cannot get a connection within this answers 503 rather than hang.
    database_connect_timeout_seconds: PositiveFloat = 3
    # No statement of a request takes this long unless something holds a lock it needs.
    database_statement_timeout_seconds: PositiveFloat = 30
    # A process that is stopped, or cut off, inside a transaction keeps its locks so long; no transaction
    # of ours waits for anything but Postgres.
    database_idle_transaction_timeout_seconds: PositiveFloat = 15

    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    # On as soon as one of the next settings is given, too. Without a CA file the system's authorities count.
    temporal_tls: bool | None = None
    temporal_tls_ca_file: Path | None = None
    # mTLS: both or none; PEM, the key without a passphrase. Read at the start: a renewed one wants a restart.
    temporal_tls_cert_file: Path | None = None
    temporal_tls_key_file: Path | None = None
    # The name in the server's certificate, where it is not the address.
    temporal_tls_server_name: str | None = None
    # Temporal Cloud's other way than mTLS; sent as `authorization: Bearer …`.
    temporal_api_key: SecretStr | None = None
    # Prefix of the three task queues and of every Temporal id, so that two stacks can share a namespace.
    temporal_task_queue: str = "agentex"
    # Seals what goes through Temporal (ids, counts, errors) with a key derived from AGENTEX_SECRET_KEY.
    temporal_encryption: bool = False
    # A call to a Temporal that is down blocks 9.8 s without a limit of ours.
    temporal_rpc_timeout_seconds: PositiveFloat = 1

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 5003
    auth: Auth = Auth.NONE
    # Without auth the API listens on loopback only, unless this is said as well: who reaches it may do all.
    allow_no_auth: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    # 1 MiB holds every prompt seen so far; larger inputs belong in a store, with a link in the input.
    max_body_bytes: PositiveInt = 1_048_576
    # What merge_params may add up to in one task, as text: four whole bodies.
    max_task_params_bytes: PositiveInt = 4_194_304
    # What is put back of an exported task in one request, which keeps the process from all else for a second.
    # A longer one is put back in pieces, the largest of which is a single entry (max_restore_bytes).
    max_snapshot_bytes: PositiveInt = 4_194_304
    # A checkpoint carries the values of its channels: a long conversation with files is some MiB, and base64
    # adds a third.
    max_checkpoint_bytes: PositiveInt = 16_777_216
    # How long a task's workflow may take to answer a query, and a Temporal that is away is waited for.
    workflow_query_timeout_seconds: PositiveFloat = 2
    # As JSON. Each update writes the whole state anew, in the table and in the log; what is larger belongs in
    # a store of its own. Nearly what a body may have, which is looked at first.
    max_state_bytes: PositiveInt = 1_000_000

    # Seals the signing secrets of webhooks, which have to be read again: 32 random bytes in base64, as
    # `openssl rand -base64 32` gives. Comma-separated: the first one seals, all of them open what was sealed
    # before the key was changed.
    secret_key: SecretStr | None = None
    # Where the world reaches this API, for the URLs of webhooks, e.g. https://agents.example.com.
    public_url: str | None = None
    # A request that is passed on to an agent, its whole answer included. GitHub gives up after 10 s and Slack
    # after 3 s; a client of the API waits for up to 300 s.
    forward_timeout_seconds: PositiveFloat = 300

    enable_agent_run_schedules: bool = Field(default=False, validation_alias="ENABLE_AGENT_RUN_SCHEDULES")

    # Which queues this worker process serves: all, or some, e.g. "ticks,deliver".
    worker_queues: Annotated[frozenset[WorkerQueue], NoDecode] = frozenset(WorkerQueue)
    # Slots per queue (design.md §4): opening is short, pages deliver for seconds, answers wait for minutes.
    worker_tick_slots: PositiveInt = 10
    worker_deliver_slots: PositiveInt = 20
    worker_answer_slots: PositiveInt = 200
    # Where the worker serves /healthz, /readyz and /metrics; 0 takes any free port.
    worker_port: Annotated[int, Field(ge=0, le=65535)] = 5004
    # A deploy must not cost paid answers: SIGTERM waits this long for open ones.
    drain_seconds: PositiveFloat = 1800
    # Ctrl-C of the dev stack is a person waiting.
    interrupt_drain_seconds: PositiveFloat = 5

    # Within this of its instant a run is on time; later ones follow the catch-up rule.
    late_after_seconds: PositiveFloat = 30
    # The newest missed instant still runs when it is less than this late.
    catch_up_within_seconds: PositiveFloat = 3600
    sweep_interval_seconds: PositiveFloat = 5
    # Listing 1,000 Temporal Schedules takes ~0.1 s; every 20 s keeps a lost one below a minute.
    sweep_temporal_interval_seconds: PositiveFloat = 20
    # A due run nobody works at is taken up again after this.
    stuck_after_seconds: PositiveFloat = 30
    clock_retire_after_seconds: PositiveFloat = 600

    # Who did what when: an entry for each request that changes something. Unset: on where callers have names,
    # which is with any AGENTEX_AUTH but none.
    audit: bool | None = None
    # A year, and a month to look at it; 0 keeps all.
    audit_retention_days: Annotated[int, Field(ge=0, le=36_500)] = 400

    # Runs are forgotten this long after their end, with their tasks, events and messages; 0 keeps all.
    run_retention_days: Annotated[int, Field(ge=0, le=36_500)] = 90

    # A claim outlives a stall of the process; the heartbeat renews it every 2 s.
    claim_seconds: PositiveFloat = 60
    claim_renew_seconds: PositiveFloat = 2
    # In flight per agent and process, on the deliver and on the answer lane.
    deliveries_per_agent: PositiveInt = 32
    answers_per_agent: PositiveInt = 200
    task_create_timeout_seconds: PositiveFloat = 60
    event_send_timeout_seconds: PositiveFloat = 30
    answer_timeout_seconds: PositiveFloat = 1800
    agent_connect_timeout_seconds: PositiveFloat = 5
    # Servers close idle connections after 5 s; a request on a closing one would be outcome_unknown.
    agent_idle_connection_seconds: PositiveFloat = 2
    # One answer of an agent, whole; a longer one is refused as a protocol error.
    agent_max_answer_bytes: PositiveInt = 16_777_216
    # The Redis to which agents write their token deltas; without it streams tell what is in Postgres.
    redis_url: SecretStr | None = None
    # An idle stream takes less than 50 kB; with more than this a process should have company.
    streams_per_process: PositiveInt = 2_000
    # What waits for one reader: minutes of deltas, and no more memory than a request's body may take.
    stream_buffer_bytes: PositiveInt = 1_048_576
    # Proxies cut connections on which nothing has come for 30 to 60 s.
    stream_ping_seconds: PositiveFloat = 15

    # Consecutive timeouts from one agent after which a page stops sending to it.
    agent_timeouts_in_a_row: PositiveInt = 8
    # Hosts of agents' addresses, and what is called instead, e.g. "host.docker.internal=127.0.0.1". Agents
    # started by their own command line register that name, which a process on the machine itself cannot
    # resolve; in a container it is right as it is, so there the default is none. Empty turns it off.
    agent_host_rewrites: Annotated[dict[str, str], NoDecode] = Field(default_factory=default_host_rewrites)
    # Where agents may live besides the public internet, e.g. "10.0.0.0/8,fd12:3456::/32"; "*" is everywhere,
    # empty nowhere else. Unset, it goes by the provider: see default_agent_networks.
    agent_networks: Annotated[Literal["*"] | tuple[Network, ...] | None, NoDecode] = None
    # How often each agent's /healthz is asked; 0 never. A probe costs some 1 ms here and at the agent.
    agent_health_interval_seconds: Annotated[float, Field(ge=0)] = 30
    # An agent that works on something else for longer than this would be late for its deliveries, too.
    agent_health_timeout_seconds: PositiveFloat = 5
    # In a row until an agent counts as Unhealthy: a restart takes less than three intervals.
    agent_health_failures: Annotated[int, Field(ge=1, le=1_000)] = 3

    @field_validator("worker_queues", mode="before")
    @classmethod
    def _split_queues(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("agent_host_rewrites", mode="before")
    @classmethod
    def _split_rewrites(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        for host, equals, instead in pairs:
            if not (equals and _HOST.fullmatch(host.strip()) and _HOST.fullmatch(instead.strip())):
                raise ValueError(
                    f"{value!r} is not HOST=HOST, comma-separated and without ports, "
                    "such as host.docker.internal=127.0.0.1"
                )
        return {host.strip().lower(): instead.strip().strip("[]") for host, _, instead in pairs}

    @field_validator("agent_networks", mode="before")
    @classmethod
    def _split_agent_networks(cls, value: object) -> object:
        if not isinstance(value, str) or value.strip() == "*":
            return value.strip() if isinstance(value, str) else value
        try:
            return _networks(value)
        except ValueError as error:
            raise ValueError(
                f"AGENTEX_AGENT_NETWORKS is {value!r}; it takes networks such as 10.0.0.0/8,fd12:3456::/32, "
                f"or * for everywhere ({error})"
            ) from None

    @field_validator("enable_agent_run_schedules", mode="before")
    @classmethod
    def _strict_flag(cls, value: object) -> object:
        if isinstance(value, bool):
            return value
        flags = {"true": True, "1": True, "false": False, "0": False}
        if not isinstance(value, str) or value not in flags:
            raise ValueError(f"ENABLE_AGENT_RUN_SCHEDULES is {value!r}; it takes true, false, 1 or 0")
        return flags[value]

    @field_validator("temporal_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        # The client would first look at it when it connects, and take a scheme for a host.
        if not _HOST_AND_PORT.fullmatch(value) or int(value.rpartition(":")[2]) > 65535:
            raise ValueError(f"AGENTEX_TEMPORAL_ADDRESS is {value!r}; it takes HOST:PORT, without a scheme")
        return value

    @field_validator(
        *_TLS_SETTINGS, "temporal_tls", "secret_key", "public_url", "redis_url", "audit", mode="before"
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        # What a compose file or a chart leaves of a variable without a value; Path("") would be a folder.
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("redis_url")
    @classmethod
    def _of_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _REDIS_URL.match(value.get_secret_value()):
            raise ValueError("is no redis://HOST:PORT/DATABASE, rediss:// (TLS) or unix:// URL")
        if value is not None and find_spec("redis") is None:
            raise ValueError("needs the package redis: pip install 'agentex-server[redis]'")
        return value

    @field_validator("temporal_tls_ca_file", "temporal_tls_cert_file", "temporal_tls_key_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                value.read_bytes()
            except OSError as error:
                raise ValueError(f"cannot be read ({error.strerror})") from None
        return value

    @field_validator("temporal_tls_ca_file")
    @classmethod
    def _holds_authorities(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
        except ssl.SSLError:
            raise ValueError("holds no certificate (PEM)") from None
        return value

    @field_validator("temporal_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        # A key from a file has a newline at its end.
        key = value.get_secret_value().strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("has characters that no HTTP header takes")
        return SecretStr(key)

    @field_validator("secret_key")
    @classmethod
    def _holds_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        keys = [_urlsafe(part.strip()) for part in value.get_secret_value().split(",")]
        if any(_key_bytes(key) != SECRET_KEY_BYTES for key in keys):
            raise ValueError("is not 32 bytes in base64, or several of these with commas between them")
        return SecretStr(",".join(keys))

    @field_validator("public_url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if value is not None and not is_base_url(value):
            raise ValueError("is not an http(s) URL without query, such as https://agents.example.com")
        return value

    @model_validator(mode="after")
    def _keys_can_be_kept(self) -> Self:
        if self.auth is not Auth.NONE and self.secret_key is None:
            raise ValueError(
                f"AGENTEX_AUTH is {self.auth.value!r}, which needs AGENTEX_SECRET_KEY: agents' keys are kept "
                "sealed with it; make one with `openssl rand -base64 32`"
            )
        return self

    @model_validator(mode="after")
    def _auth_is_told_whom_to_ask(self) -> Self:
        needed = {Auth.OIDC: ("oidc_issuer", "oidc_audience"), Auth.REMOTE: ("remote_auth_url",)}
        missing = [_variable(name) for name in needed.get(self.auth, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"AGENTEX_AUTH is {self.auth.value!r}, which needs {' and '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _tls_fits_together(self) -> Self:
        given = [name for name in _TLS_SETTINGS if getattr(self, name) is not None]
        if self.temporal_tls is False and given:
            raise ValueError(f"AGENTEX_TEMPORAL_TLS is false, but {_variable(given[0])} needs TLS")
        certificate, key = self.temporal_tls_cert_file, self.temporal_tls_key_file
        if certificate is None and key is None:
            return self
        names = f"{_variable('temporal_tls_cert_file')} and {_variable('temporal_tls_key_file')}"
        if certificate is None or key is None:
            raise ValueError(
                f"{names} are given both or not at all; the {'key' if key else 'cert'} stands alone"
            )
        try:
            # With a callable, an encrypted key is an error rather than a question at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=str)
        except ssl.SSLError:
            raise ValueError(f"{names} are not a certificate and its key (PEM, no passphrase)") from None
        return self

    @model_validator(mode="after")
    def _has_what_seals(self) -> Self:
        if self.temporal_encryption and self.secret_key is None:
            raise ValueError(
                "AGENTEX_TEMPORAL_ENCRYPTION is true, which needs AGENTEX_SECRET_KEY, of which its key "
                "is derived; make one with `openssl rand -base64 32`"
            )
        return self

    @model_validator(mode="after")
    def _database_tls_can_be_had(self) -> Self:
        # Not on the field: its error would show the URL, with the password.
        database_tls.check(self.database_url)
        return self

    @property
    def audits(self) -> bool:
        """Whether requests leave entries in the audit."""
        return self.auth is not Auth.NONE if self.audit is None else self.audit

    @property
    def exposure_problem(self) -> str | None:
        """Why the API must not listen where it is told to; None when it may."""
        if self.auth is not Auth.NONE or self.allow_no_auth or is_loopback(self.host):
            return None
        return (
            f"AGENTEX_AUTH is 'none' and AGENTEX_HOST {self.host!r} can be reached from elsewhere, so that "
            "anybody could run any agent: set AGENTEX_AUTH (docs/security.md), or AGENTEX_ALLOW_NO_AUTH=true "
            "where something else keeps callers away"
        )

    @property
    def temporal_uses_tls(self) -> bool:
        """Whether Temporal is spoken to over TLS: asked for, or needed by another setting."""
        return bool(self.temporal_tls) or any(getattr(self, name) is not None for name in _TLS_SETTINGS)

    @property
    def allowed_agent_networks(self) -> tuple[Network, ...] | None:
        """Where agents may live besides the public internet; None for everywhere."""
        if self.agent_networks == "*":
            return None
        return default_agent_networks(self.auth) if self.agent_networks is None else self.agent_networks

    @cached_property
    def async_database_url(self) -> str:
        """The URL with SQLAlchemy's asyncpg driver in it, whatever driver it was given with.

        Without libpq's words for TLS, which are in `database_connect_arguments`.
        """
        _, _, rest = database_tls.split(self.database_url)[0].partition("://")
        return f"postgresql+asyncpg://{rest}"

    @cached_property
    def database_connect_arguments(self) -> dict[str, str]:
        """What asyncpg.connect takes beside the URL."""
        return database_tls.connect_arguments(database_tls.split(self.database_url)[1])

    @property
    def max_restore_bytes(self) -> int:
        """What one request may put back of an exported task: at least the largest single entry.

        An entry came in as a body, bytes in base64; it goes out with bytes in hexadecimal, which is half as
        much again, and with a blank behind each comma.
        """
        return max(self.max_snapshot_bytes, 2 * max(self.max_body_bytes, self.max_checkpoint_bytes) + 65_536)

    def task_queue(self, queue: WorkerQueue) -> str:
        """The Temporal task queue of one kind of work, e.g. agentex-ticks."""
        return f"{self.temporal_task_queue}-{queue}"
