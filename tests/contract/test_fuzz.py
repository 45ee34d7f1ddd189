"""The specification holds under generated requests, good and bad ones."""

from __future__ import annotations

import pytest

from tests.contract.fuzz import fuzz
from tests.support.postgres import PostgresServer
from tests.support.served import served_api

# About 60 cases for each operation; `make fuzz` makes many more.
EXAMPLES = 10
FEWEST_CASES = 3_000


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("contract-spec")
def test_every_answer_to_generated_requests_is_a_declared_one(postgres: PostgresServer) -> None:
    with served_api(postgres) as url:
        fuzzed = fuzz(url, examples=EXAMPLES, seed=20_261_124)
    assert fuzzed.is_well, fuzzed.output
    assert fuzzed.cases >= FEWEST_CASES, fuzzed.output
