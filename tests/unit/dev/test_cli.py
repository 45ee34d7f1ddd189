"""The command line: what a wrong setting looks like."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from agentex.cli.main import app


def run(arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and stderr of `agentex …` in this process."""
    result = CliRunner().invoke(app, arguments, env=environment)
    return result.exit_code, result.stderr


@pytest.mark.parametrize("command", ["serve", "worker", "migrate", "dev"])
def test_wrong_settings_are_named_one_per_line(command: str) -> None:
    environment = {"AGENTEX_PORT": "abc", "ENABLE_AGENT_RUN_SCHEDULES": "yes", "AGENTEX_AUTH": "magic"}
    code, stderr = run([command], environment)
    assert (code, stderr.splitlines()) == (
        2,
        [
            "AGENTEX_PORT is 'abc': Input should be a valid integer, unable to parse string as an integer",
            "AGENTEX_AUTH is 'magic': Input should be 'none', 'api_keys', 'oidc' or 'remote'",
            "ENABLE_AGENT_RUN_SCHEDULES is 'yes'; it takes true, false, 1 or 0",
        ],
    )


def test_wrong_item_of_a_list_names_the_variable() -> None:
    assert run(["worker"], {"AGENTEX_WORKER_QUEUES": "ticks,nonsense"}) == (
        2,
        "AGENTEX_WORKER_QUEUES is 'nonsense': Input should be 'ticks', 'deliver' or 'answers'\n",
    )


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert {
        name for name in ("serve", "worker", "migrate", "dev", "openapi") if f" {name} " in result.stdout
    } == {
        "serve",
        "worker",
        "migrate",
        "dev",
        "openapi",
    }


def test_help_of_dev_tells_its_options_and_what_replaces_an_embedded_server() -> None:
    result = CliRunner().invoke(app, ["dev", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    words = (
        "--data-dir",
        "--no-agents",
        "--reset",
        "AGENTEX_DATABASE_URL",
        "AGENTEX_TEMPORAL_ADDRESS",
        "AGENTEX_PORT",
    )
    assert [word for word in words if word not in result.stdout] == []
