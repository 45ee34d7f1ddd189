"""Clients that generators make of openapi.yaml: they compile, and they speak to the running server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract_env import built
from tests.support.postgres import PostgresServer
from tests.support.served import served_api

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("contract-spec")]

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


@pytest.fixture
def api(postgres: PostgresServer) -> Iterator[str]:
    """An API of the test's own."""
    with served_api(postgres) as url:
        yield url


def ran(*command: str | Path, folder: Path) -> str:
    """What a program printed; fails with all of it when it ends badly."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_a_generated_python_client_drives_the_server(api: str, tmp_path: Path) -> None:
    python = built("tools", Path(sys.executable), imports="openapi_python_client, schemathesis")
    # Its hooks would format the code with a tool that is not installed there.
    (tmp_path / "generate.yml").write_text("post_hooks: []\n")
    generate = [python.parent / "openapi-python-client", "generate", "--path", ROOT / "openapi.yaml"]
    options = ["--config", "generate.yml", "--output-path", "generated", "--meta", "none"]
    said = ran(*generate, *options, folder=tmp_path)
    # It warns of each part of a specification that it cannot make code of.
    assert "warning" not in said.lower(), said
    shutil.copy(HERE / "generated/drive.py", tmp_path)
    ran(python, "drive.py", api, folder=tmp_path)


def test_a_generated_typescript_client_compiles_and_drives_the_server(api: str, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no Node on this machine")
    shutil.copytree(HERE / "typescript", tmp_path, dirs_exist_ok=True)
    ran("npm", "ci", "--silent", folder=tmp_path)
    ran("npx", "openapi-ts", "-i", ROOT / "openapi.yaml", "-o", "client", folder=tmp_path)
    ran("npx", "tsc", folder=tmp_path)
    ran("node", "built/drive.js", api, folder=tmp_path)
