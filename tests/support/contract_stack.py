"""A stack for the contract tests: as users run it, with agents made with the SDK beside it."""

from __future__ import annotations

from tests.support.fault_stack import Stack


class ContractStack(Stack):
    """API, worker and agents; nothing in it is hurt."""
