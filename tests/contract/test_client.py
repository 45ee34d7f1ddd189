"""agentex-client, unmodified, against this server: each check of tests/contract/driver, sync and async.

A check that fails tells the requests that it had made: its last line is the route it depends on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests.support.contract_driver import MODES, Report, check_names, drive
from tests.support.contract_stack import ContractStack

pytestmark = [pytest.mark.xdist_group("contract-client"), pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
async def reports(stack: ContractStack) -> Mapping[str, Report]:
    """What came of all checks, by the client's mode; both at once."""
    agent = await stack.start_agent("async")
    runs = [drive(mode, stack.url, agent.url, stack.directory) for mode in MODES]
    return dict(zip(MODES, await asyncio.gather(*runs), strict=True))


@pytest.mark.parametrize("check", check_names())
@pytest.mark.parametrize("mode", MODES)
def test_check(reports: Mapping[str, Report], mode: str, check: str) -> None:
    error = reports[mode].checks[check]
    if error is not None:
        pytest.fail(error, pytrace=False)


@pytest.mark.parametrize("mode", MODES)
def test_every_method_of_every_resource_is_driven(reports: Mapping[str, Report], mode: str) -> None:
    report = reports[mode]
    assert len(report.methods) >= 80
    assert set(report.methods) - set(report.called) == set()
