"""Runs tests/contract/driver in the client's environment; each of its checks becomes a test."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.support.contract_env import ROOT, client_python, environment

DRIVER = ROOT / "tests/contract/driver"
# Modules of checks that need more than a server and the scripted agent.
APART = {"talks", "denied", "unavailable", "keyed"}
MODES: tuple[Literal["sync", "async"], ...] = ("sync", "async")


@dataclass(frozen=True)
class Report:
    """What the driver says: errors by check, the client's methods, and those that were called."""

    checks: dict[str, str | None]
    seconds: dict[str, float]
    called: list[str]
    methods: list[str]

    @property
    def errors(self) -> dict[str, str]:
        """The checks that failed."""
        return {name: error for name, error in self.checks.items() if error is not None}


def check_names(*modules: str) -> list[str]:
    """The checks of some modules of the driver, or of all that every server must pass.

    Read, not imported: they need the client, whose import name is that of the server.
    """
    found = [
        path
        for path in sorted(DRIVER.glob("*.py"))
        if (path.stem in modules if modules else path.stem not in APART)
    ]
    return [
        f"{path.stem}.{node.name}"
        for path in found
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("check_")
    ]


async def drive(
    mode: str,
    server: str,
    agent: str,
    folder: Path,
    *options: str,
    variables: Mapping[str, str] | None = None,
) -> Report:
    """Run the driver; fails with what it printed when it ends otherwise than with a report."""
    python = await asyncio.to_thread(client_python)
    report = folder / f"report-{mode}.json"
    arguments = ["--mode", mode, "--server", server, "--agent", agent, "--report", str(report), *options]
    process = await asyncio.create_subprocess_exec(
        python,
        DRIVER,
        *arguments,
        env=environment() | dict(variables or {}),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return Report(**json.loads(report.read_bytes()))
