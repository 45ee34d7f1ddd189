"""What is generated is fresh: the spec, and the schema that the migrations make."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.util.exc import CommandError

from agentex.app import openapi_yaml
from agentex.database import alembic_config
from agentex.settings import Settings

ROOT = Path(__file__).parents[2]


def test_openapi_is_fresh() -> None:
    assert (ROOT / "openapi.yaml").read_text() == openapi_yaml(), "stale: run `make openapi`"


def test_migrations_make_the_models(database_url: str) -> None:
    try:
        command.check(alembic_config(Settings(database_url=database_url)))
    except CommandError as error:
        pytest.fail(f"the models have changed without a migration: {error}")
