"""schemathesis over all of openapi.yaml against a server of its own: `make fuzz`, and a short run in tests.

    python -m tests.contract.fuzz --examples 60

Every answer has to be one that the specification declares, with its content type and its schema, and none a
server error. Streams that stay open are left out, and /readyz, which says 503 on purpose without Temporal.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from agentex.database import migrate
from agentex.settings import Settings
from tests.support.contract_env import built
from tests.support.postgres import PostgresServer
from tests.support.served import served_api

ROOT = Path(__file__).parents[2]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
LEFT_OUT = r"/stream$|^/readyz$"


@dataclass(frozen=True)
class Fuzzed:
    """How many requests were made, whether all answers were expected, and what was printed."""

    cases: int
    is_well: bool
    output: str


def fuzz(url: str, *, examples: int, seed: int) -> Fuzzed:
    """Fuzz the API at the URL; the same seed gives the same requests."""
    python = built("tools", Path(sys.executable), imports="openapi_python_client, schemathesis")
    options = ["--checks", CHECKS, "--exclude-path-regex", LEFT_OUT, "--continue-on-failure", "--no-color"]
    options += ["--max-examples", str(examples), "--seed", str(seed)]
    options += ["--generation-database", "none", "--warnings", "off", "--request-timeout", "30"]
    command = [str(python.parent / "schemathesis"), "run", str(ROOT / "openapi.yaml"), "--url", url, *options]
    # It leaves a folder of its own where it runs.
    with TemporaryDirectory() as folder:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    output = result.stdout + result.stderr
    found = re.search(r"(\d+) generated", output)
    return Fuzzed(int(found[1]) if found else 0, result.returncode == 0, output)


def main() -> None:
    """Fuzz a server of its own; exits with 1 when an answer was not expected."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=100, help="for each operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    postgres = PostgresServer()
    postgres.start()
    try:
        postgres.make_template("migrated", lambda url: migrate(Settings(database_url=url)))
        with served_api(postgres) as url:
            fuzzed = fuzz(url, examples=options.examples, seed=options.seed)
    finally:
        postgres.close()
    sys.stdout.write(fuzzed.output)
    raise SystemExit(0 if fuzzed.is_well else 1)


if __name__ == "__main__":
    main()
