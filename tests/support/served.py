"""An API process on a migrated Postgres, for programs that speak HTTP to it; Temporal is away."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager

from agentex.dev.ports import free_port
from tests.support.postgres import PostgresServer, open_folder
from tests.support.processes import ManagedProcess, agentex


@contextmanager
def served_api(postgres: PostgresServer) -> Generator[str]:
    """The URL of an API with a database of its own, made from the template `migrated`."""
    folder, port = open_folder(), free_port()
    environment = {
        "AGENTEX_DATABASE_URL": postgres.create_database(template="migrated"),
        "AGENTEX_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
        "AGENTEX_PORT": str(port),
        "ENABLE_AGENT_RUN_SCHEDULES": "true",
    }
    url = f"http://127.0.0.1:{port}"
    with ManagedProcess(agentex("serve"), environment=environment, log=folder / "api.log") as process:
        process.wait_until_ready(f"{url}/healthz")
        yield url
    shutil.rmtree(folder)
