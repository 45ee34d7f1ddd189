"""Settings: what the environment may say, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from agentex import settings as settings_module
from agentex.settings import Settings, WorkerQueue, default_agent_networks

FLAG = "ENABLE_AGENT_RUN_SCHEDULES"


@pytest.mark.parametrize(("value", "on"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_the_flag_takes_four_words(monkeypatch: pytest.MonkeyPatch, value: str, on: bool) -> None:
    monkeypatch.setenv(FLAG, value)
    assert Settings().enable_agent_run_schedules is on


@pytest.mark.parametrize(
    "value", ["", "yes", "no", "on", "off", "True", "FALSE", "TRUE", "2", " true", "true ", "t", "null"]
)
def test_any_other_word_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(FLAG, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [error["msg"] for error in caught.value.errors()] == [
        f"Value error, {FLAG} is {value!r}; it takes true, false, 1 or 0"
    ]


def test_the_flag_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FLAG, raising=False)
    assert Settings().enable_agent_run_schedules is False


def test_a_worker_serves_all_queues_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTEX_WORKER_QUEUES", raising=False)
    assert Settings().worker_queues == {WorkerQueue.TICKS, WorkerQueue.DELIVER, WorkerQueue.ANSWERS}


def test_a_worker_serves_the_queues_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTEX_WORKER_QUEUES", "ticks, deliver")
    assert Settings().worker_queues == {WorkerQueue.TICKS, WorkerQueue.DELIVER}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AGENTEX_WORKER_QUEUES", "ticks,letters"),
        ("AGENTEX_WORKER_QUEUES", ""),
        ("AGENTEX_PORT", "70000"),
        ("AGENTEX_PORT", "-1"),
        ("AGENTEX_PORT", "http"),
        ("AGENTEX_CLAIM_SECONDS", "0"),
        ("AGENTEX_RUN_RETENTION_DAYS", "-1"),
        ("AGENTEX_LATE_AFTER_SECONDS", "-30"),
        ("AGENTEX_ANSWER_TIMEOUT_SECONDS", "30m"),
        ("AGENTEX_DATABASE_POOL_SIZE", "0"),
        ("AGENTEX_AUTH", "nobody"),
        ("AGENTEX_AUDIT", "perhaps"),
        ("AGENTEX_AUDIT_RETENTION_DAYS", "-1"),
        ("AGENTEX_LOG_LEVEL", "loud"),
        ("AGENTEX_AGENT_HEALTH_INTERVAL_SECONDS", "-1"),
        ("AGENTEX_AGENT_HEALTH_TIMEOUT_SECONDS", "0"),
        ("AGENTEX_AGENT_HEALTH_FAILURES", "0"),
    ],
)
def test_a_value_that_cannot_be_meant_is_an_error(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://agentex:secret@127.0.0.1:5432/agentex",
        "postgres://agentex:secret@127.0.0.1:5432/agentex",
        "postgresql+asyncpg://agentex:secret@127.0.0.1:5432/agentex",
        "postgresql+psycopg://agentex:secret@127.0.0.1:5432/agentex",
    ],
)
def test_the_engine_gets_our_driver_whatever_the_url_names(url: str) -> None:
    settings = Settings(database_url=url)
    assert settings.async_database_url == "postgresql+asyncpg://agentex:secret@127.0.0.1:5432/agentex"


def test_queues_and_ids_carry_the_stack_s_prefix() -> None:
    settings = Settings(temporal_task_queue="blue")
    assert [settings.task_queue(queue) for queue in WorkerQueue] == [
        "blue-ticks",
        "blue-deliver",
        "blue-answers",
    ]


REWRITES = "AGENTEX_AGENT_HOST_REWRITES"


@pytest.mark.parametrize(
    ("value", "rewrites"),
    [
        ("host.docker.internal=127.0.0.1", {"host.docker.internal": "127.0.0.1"}),
        (" Agents.Example = agents.internal , b=[::1],", {"agents.example": "agents.internal", "b": "::1"}),
        ("", {}),
    ],
)
def test_hosts_of_agents_are_rewritten_as_told(
    monkeypatch: pytest.MonkeyPatch, value: str, rewrites: dict[str, str]
) -> None:
    monkeypatch.setenv(REWRITES, value)
    assert Settings().agent_host_rewrites == rewrites


@pytest.mark.parametrize("value", ["host", "a=", "=b", "a=b:80", "a:80=b", "http://a=b", "a=b c", "a=b=c"])
def test_a_rewrite_that_is_none_is_an_error_that_says_the_form(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(REWRITES, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    form = "HOST=HOST, comma-separated and without ports, such as host.docker.internal=127.0.0.1"
    assert [error["msg"] for error in caught.value.errors()] == [f"Value error, {value!r} is not {form}"]


NETWORKS = "AGENTEX_AGENT_NETWORKS"


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        (" 10.1.0.0/16 , fd12:3456::/32,127.0.0.1,", ["10.1.0.0/16", "fd12:3456::/32", "127.0.0.1/32"]),
        ("", []),
        ("*", None),
        (" * ", None),
    ],
)
def test_agents_may_live_in_the_networks_that_are_told(
    monkeypatch: pytest.MonkeyPatch, value: str, allowed: list[str] | None
) -> None:
    monkeypatch.setenv(NETWORKS, value)
    found = Settings().allowed_agent_networks
    assert (None if found is None else [str(network) for network in found]) == allowed


@pytest.mark.parametrize(
    "value",
    ["local", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8 127.0.0.0/8", "10.*", "*,10.0.0.0/8", "::1%lo/64"],
)
def test_a_network_that_is_none_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(NETWORKS, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    (error,) = caught.value.errors()
    form = "it takes networks such as 10.0.0.0/8,fd12:3456::/32, or * for everywhere ("
    assert error["msg"].startswith(f"Value error, {NETWORKS} is {value!r}; {form}")


def test_unset_the_networks_are_local_only_where_nobody_is_asked_who_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(NETWORKS, raising=False)
    local = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
    assert [str(network) for network in Settings().allowed_agent_networks or ()] == local
    for auth in ("api_keys", "oidc", "remote"):
        assert default_agent_networks(auth) == ()
        assert Settings().model_copy(update={"auth": auth}).allowed_agent_networks == ()


@pytest.mark.parametrize("known_by", ["nothing", "a file", "Kubernetes"])
def test_the_docker_host_is_this_machine_but_in_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known_by: str
) -> None:
    mark = tmp_path / ".dockerenv"
    monkeypatch.setattr(settings_module, "_CONTAINER_FILES", (mark,))
    for name in (REWRITES, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    if known_by == "a file":
        mark.touch()
    elif known_by == "Kubernetes":
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    expected = {"host.docker.internal": "127.0.0.1"} if known_by == "nothing" else {}
    assert Settings().agent_host_rewrites == expected


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:6379/0", "rediss://me:secret@redis.example", "unix:///run/r"]
)
def test_a_redis_url_is_kept_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AGENTEX_REDIS_URL", url)
    given = Settings().redis_url
    assert given is not None
    assert (given.get_secret_value(), "secret" in repr(given)) == (url, False)


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis:// "])
def test_what_is_no_redis_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AGENTEX_REDIS_URL", url)
    with pytest.raises(ValidationError, match="is no redis://HOST:PORT/DATABASE"):
        Settings()


def test_a_redis_url_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(name: str) -> None:
        assert name == "redis"

    monkeypatch.setattr("agentex.settings.find_spec", lacks)
    monkeypatch.setenv("AGENTEX_REDIS_URL", "redis://127.0.0.1")
    with pytest.raises(ValidationError, match=r"pip install 'agentex-server\[redis\]'"):
        Settings()


def test_an_empty_redis_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTEX_REDIS_URL", " ")
    assert Settings().redis_url is None


@pytest.mark.parametrize(
    ("auth", "audit", "audits"),
    [
        ("none", None, False),
        ("none", "", False),
        ("none", "true", True),
        ("api_keys", None, True),
        ("api_keys", "", True),
        ("api_keys", "false", False),
    ],
)
def test_there_is_an_audit_where_callers_have_names(
    monkeypatch: pytest.MonkeyPatch, auth: str, audit: str | None, audits: bool
) -> None:
    monkeypatch.setenv("AGENTEX_AUTH", auth)
    monkeypatch.setenv("AGENTEX_SECRET_KEY", "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3JlLi4=")
    if audit is not None:
        monkeypatch.setenv("AGENTEX_AUDIT", audit)
    assert Settings().audits is audits
