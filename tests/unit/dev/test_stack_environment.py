"""What the parts of the dev stack find in their environment."""

from __future__ import annotations

import pytest

from agentex.dev.stack import stack_environment
from agentex.settings import Settings, default_agent_networks


def test_agents_on_this_machine_are_called_with_every_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack_environment({}).items():
        monkeypatch.setenv(name, value)
    settings = Settings().model_copy(update={"auth": "api_keys"})
    assert settings.allowed_agent_networks == default_agent_networks("none") != ()
    assert settings.agent_host_rewrites == {"host.docker.internal": "127.0.0.1"}


@pytest.mark.parametrize("value", ["", "*", "10.0.0.0/8"])
def test_what_is_set_stays(value: str) -> None:
    found = stack_environment({"AGENTEX_AGENT_NETWORKS": value, "PATH": "/bin", "PYTHONUNBUFFERED": ""})
    assert (found["AGENTEX_AGENT_NETWORKS"], found["PATH"], found["PYTHONUNBUFFERED"]) == (value, "/bin", "1")
