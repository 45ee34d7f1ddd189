"""`make bench`: stampedes beside the bare limit, in one run on the embedded stack; a table and a JSON file.

    python -m tests.benchmarks [--runs 3] [--only 2000] [--output bench-stampede.json]

The ratio is the bare loop's time for the same 2n POSTs over the last delivery's lateness, for n = 2,000: once
with the fastest agent that Python has, once with one as users have them (FastAPI on uvicorn).
Medians of the runs; a machine with other work to do shows in their spread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.bare import bare_seconds
from tests.benchmarks.stack import USUAL_AGENT, open_folder, running_agent, running_stack
from tests.benchmarks.stampede import Measured, Scenario, stampede
from tests.support.acp_server import read_record

SCENARIOS = [
    Scenario("200 schedules, one minute, async agent", 200, "async", 1, last_target_seconds=2),
    Scenario(
        "2,000 schedules, the fastest agent", 2_000, "async", 1, last_target_seconds=6, beside_bare=True
    ),
    Scenario(
        "2,000 schedules, a FastAPI agent",
        2_000,
        "async",
        1,
        last_target_seconds=6,
        agent=USUAL_AGENT,
        beside_bare=True,
    ),
    Scenario("200 schedules, one minute, sync agent", 200, "sync", 1, last_target_seconds=3),
    Scenario("300 cadences due in one minute", 300, "async", 300, last_target_seconds=3),
]
RATIO_TARGET = 0.4


async def measure(runs: int, scenarios: list[Scenario]) -> list[Measured]:
    """Every scenario, the bare loop right behind those that want it, so many times, in one stack."""
    measured: list[Measured] = []
    with open_folder() as directory, running_stack(directory) as stack:
        for number in range(runs):
            for place, scenario in enumerate(scenarios):
                name = f"agent-{number}-{place}"
                with running_agent(directory, name, scenario.agent) as agent:
                    result = await stampede(stack, agent, scenario)
                if scenario.beside_bare:
                    sent = read_record(agent.record)
                    with running_agent(directory, f"bare-{name}", scenario.agent) as agent:
                        result = replace(result, bare_seconds=await bare_seconds(agent, sent))
                measured.append(result)
    return measured


def show(measured: list[Measured]) -> None:
    """Print one row a scenario: medians, and the spread of the last delivery."""
    table = Table(title="Stampedes: seconds from the due instant to delivery, medians of the runs")
    for heading in ("scenario", "p50", "p95", "last", "spread", "target", "fires/s", "missing", "doubled"):
        table.add_column(heading, justify="left" if heading == "scenario" else "right")
    console = Console(width=110)
    by_name = {
        name: [item for item in measured if item.name == name]
        for name in dict.fromkeys(item.name for item in measured)
    }
    for name, items in by_name.items():
        last = [item.last for item in items]
        table.add_row(
            name,
            *[f"{statistics.median(getattr(i, key) for i in items):.2f}" for key in ("p50", "p95", "last")],
            f"{min(last):.2f}–{max(last):.2f}",
            f"≤ {items[0].target:.0f}",
            f"{statistics.median(item.fires_per_second for item in items):.0f}",
            str(sum(item.missing for item in items)),
            str(sum(item.doubled for item in items)),
        )
    console.print(table)
    for name, items in by_name.items():
        bare = [item.bare_seconds for item in items if item.bare_seconds is not None]
        if bare:
            console.print(_beside_bare(name, items, bare))


def _beside_bare(name: str, items: list[Measured], bare: list[float]) -> str:
    """The bare loop's line: its time, its spread, and the ratio to the last delivery."""
    seconds, posts = statistics.median(bare), 2 * items[0].runs
    ratio = seconds / statistics.median(item.last for item in items)
    return (
        f"{name}: bare loop, the same {posts:,} POSTs, 32 in flight: {seconds:.2f} s "
        f"({min(bare):.2f}–{max(bare):.2f} s, {posts / seconds:,.0f} POSTs/s); "
        f"ratio bare / last {ratio:.2f} (target ≥ {RATIO_TARGET})"
    )


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", type=int, help="only the scenarios with this many schedules")
    parser.add_argument("--output", type=Path, default=Path("bench-stampede.json"))
    options = parser.parse_args()
    scenarios = [item for item in SCENARIOS if options.only in (None, item.schedules)]
    measured = asyncio.run(measure(options.runs, scenarios))
    show(measured)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    result = {"machine": machine, "stampedes": [item.as_json() for item in measured]}
    options.output.write_text(json.dumps(result, indent=2))


main()
