"""A Postgres of the tests' own, and databases made from a migrated template (30 to 60 ms each).

    server = PostgresServer()
    server.start()
    server.make_template("migrated", lambda url: migrate(Settings(database_url=url)))
    url = server.create_database(template="migrated")
    server.close()

Everything is synchronous: it runs in session fixtures, and a migration brings an event loop of its own. One
server per pytest process: it is up in 0.7 s, less than sharing one among processes would cost in bookkeeping.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from agentex.dev.ports import free_port
from agentex.dev.postgres import EmbeddedPostgres


def open_folder() -> Path:
    """A temporary folder that others can enter, unlike pytest's: as root, Postgres is another user."""
    directory = Path(tempfile.mkdtemp(prefix="agentex-test-"))
    directory.chmod(0o755)
    return directory


class PostgresServer:
    """An embedded Postgres that trades durability for speed, in a temporary folder that `close` removes."""

    def __init__(self) -> None:
        self.directory = open_folder()
        self.postgres = EmbeddedPostgres(self.directory / "postgres", free_port(), durable=False)

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
        self.postgres.start()

    def close(self) -> None:
        """Stop it at once and remove its folder: nobody reads this data again."""
        self.postgres.stop_at_once()
        shutil.rmtree(self.directory)

    def make_template(self, name: str, migrate: Callable[[str], None]) -> None:
        """Make a database, migrate it by its URL, and close it to connections so that it can be copied."""
        self.execute(f"CREATE DATABASE {name}")
        migrate(self.postgres.database_url(name))
        self.execute(f"ALTER DATABASE {name} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")

    def create_database(self, template: str = "template1") -> str:
        """A new database, a copy of `template`; returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.postgres.database_url(name)

    def drop_database(self, url: str) -> None:
        """Remove it, whoever is still connected."""
        name = url.rpartition("/")[2]
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, *, url: str | None = None) -> str:
        """Run one SQL statement and return its rows, columns parted by `|`. Raises CalledProcessError."""
        psql = [
            str(self.postgres.home.binaries / "psql"),
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
        ]
        result = subprocess.run(
            [*psql, "--set=ON_ERROR_STOP=1", "--command", statement, url or self.postgres.url],
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            env={key: value for key, value in os.environ.items() if not key.startswith("PG")},
        )
        return result.stdout.strip()
