"""`make bench`: what the service does and costs, beside the bare limit, on the embedded stack.

    python -m tests.benchmarks [part …] [--runs 3] [--only 2000] [--output bench.json]

Stampedes: medians of the runs; the ratio is the bare loop's time for the same 2n POSTs over the last
delivery's lateness, for n = 2,000: once with the fastest agent that Python has, once with one as users have
them (FastAPI on uvicorn). Requests: one client after the other, beside one bare statement. Messages: POST
/messages by one client and with 32 in flight, beside bare inserts. RPC: message/send through the server,
beside the same call straight to the agent. Footprint: memory, the CPU of doing nothing, and the start of an
empty clone. Streams: memory of an idle one, and how late messages and token deltas come, beside one who reads
Redis itself. Auth: reads with a key of this server, beside the same reads without auth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from agentex.dev.ports import free_port
from agentex.dev.redis import EmbeddedRedis
from tests.benchmarks.auth import ADDED_TARGET_MS as AUTH_TARGET_MS
from tests.benchmarks.auth import Read, reads
from tests.benchmarks.bare import bare_seconds
from tests.benchmarks.footprint import Usage, idle_cpu_an_hour, total_megabytes, usage
from tests.benchmarks.messages import IN_FLIGHT, Stored, stored
from tests.benchmarks.requests import Latency, latencies, open_client
from tests.benchmarks.rpc import ADDED_TARGET_MS, Relayed, relayed
from tests.benchmarks.rpc import RATIO_TARGET as RPC_RATIO_TARGET
from tests.benchmarks.stack import USUAL_AGENT, open_folder, running_agent, running_stack
from tests.benchmarks.stampede import Measured, Scenario, stampede
from tests.benchmarks.startup import Startup, startup_seconds
from tests.benchmarks.streams import IDLE_STREAMS, Streams, measure_streams
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
PARTS = ["stampedes", "requests", "messages", "rpc", "auth", "footprint", "streams"]
FEW, MANY = 100, 10_000
# Long enough for two minutes' ticks and their tidying.
IDLE_SECONDS = 120
# What making the schedules leaves to do: Postgres vacuums and analyses once a minute.
SETTLE_SECONDS = 75


@dataclass(frozen=True)
class Footprint:
    """What the stack costs; idle_cpu: CPU seconds an hour by part, by number of schedules."""

    startup: Startup
    idle: dict[str, Usage]
    after: dict[str, Usage]
    idle_cpu: dict[int, dict[str, float]]


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


async def measure_requests() -> list[Latency]:
    """Each kind of request with 100 and with 10,000 schedules of one agent."""
    measured: list[Latency] = []
    with open_folder() as directory, running_stack(directory) as stack:
        async with aiohttp.ClientSession() as http:
            for count in (FEW, MANY):
                client = await open_client(http, stack, f"bench-{count}")
                await client.create_many(count)
                measured += await latencies(client, count)
                await client.bare.close()
    return measured


def show_requests(measured: list[Latency]) -> None:
    """Print one row a kind of request and number of schedules."""
    table = Table(title="Requests: milliseconds, one client after the other")
    for heading in ("request", "schedules", "p50", "p95", "target p50", "bare statement p50"):
        table.add_column(heading, justify="left" if heading == "request" else "right")
    for item in measured:
        target = f"≤ {item.target:.0f}" if item.target else ""
        values = [f"{item.p50:.1f}", f"{item.p95:.1f}", target, f"{item.bare_p50:.2f}"]
        table.add_row(item.name, f"{item.schedules:,}", *values)
    console = Console(width=110)
    console.print(table)
    few, many = ([i.p50 for i in measured if (i.name, i.schedules) == ("list 100", n)] for n in (FEW, MANY))
    console.print(f"list 100 out of {MANY:,} over out of {FEW}: {many[0] / few[0]:.2f} (target ≤ 1.5)")


async def measure_rpc() -> list[Relayed]:
    """message/send through the server and straight to the agent."""
    with open_folder() as directory, running_stack(directory) as stack:
        return await relayed(stack, directory)


def show_rpc(measured: list[Relayed]) -> None:
    """Print one row a kind of agent and answer."""
    table = Table(title="message/send: milliseconds with one client, calls a second with 32 in flight")
    for heading in ("agent, answer", "direct p50", "through p50", "added", "direct/s", "through/s", "ratio"):
        table.add_column(heading, justify="left" if heading == "agent, answer" else "right")
    for item in measured:
        latencies_ = [f"{value:.1f}" for value in (item.direct_p50, item.through_p50, item.added_p50)]
        rates = [f"{value:,.0f}" for value in (item.direct_per_second, item.through_per_second)]
        table.add_row(item.name, *latencies_, *rates, f"{item.ratio:.2f}")
    console = Console(width=110)
    console.print(table)
    console.print(f"targets: added ≤ {ADDED_TARGET_MS} ms, ratio ≥ {RPC_RATIO_TARGET}")


async def measure_messages() -> Stored:
    """POST /messages beside bare inserts of the same rows."""
    connector = aiohttp.TCPConnector(limit=0)
    with open_folder() as directory, running_stack(directory) as stack:
        async with aiohttp.ClientSession(connector=connector) as http:
            return await stored(http, stack)


def show_messages(measured: Stored) -> None:
    """Print what one client waits for, and how many a second many get through."""
    table = Table(title="POST /messages")
    for heading in ("", "agentex", "target", "bare insert"):
        table.add_column(heading, justify="left" if not heading else "right")
    bare = measured.bare_per_second
    table.add_row("p50 ms, one client", f"{measured.p50:.1f}", "≤ 6", f"{measured.bare_p50:.2f}")
    table.add_row("p95 ms, one client", f"{measured.p95:.1f}", "", "")
    table.add_row(f"a second, {IN_FLIGHT} in flight", f"{measured.per_second:,.0f}", "≥ 500", f"{bare:,.0f}")
    Console(width=110).print(table)


async def measure_auth() -> list[Read]:
    """Reads with a key and without, in one stack."""
    with open_folder() as directory, running_stack(directory) as stack:
        return await reads(stack, directory)


def show_auth(measured: list[Read]) -> None:
    """Print one row a kind of read and role."""
    table = Table(title="Auth: milliseconds of a read, p50, one client")
    for heading in ("read", "none", "api_keys", "added", "target"):
        table.add_column(heading, justify="left" if heading == "read" else "right")
    for one in measured:
        figures = [f"{value:.2f}" for value in (one.open_p50, one.keyed_p50, one.added_p50)]
        table.add_row(one.name, *figures, f"≤ {AUTH_TARGET_MS}")
    Console(width=110).print(table)


async def measure_footprint() -> Footprint:
    """Memory idle and after a stampede; idle CPU at 0, 1,000 and 10,000 schedules; both starts."""
    with open_folder() as directory:
        started = startup_seconds(directory)
        with running_stack(directory) as stack:
            await asyncio.sleep(SETTLE_SECONDS)
            idle = usage(stack)
            cpu = {0: await idle_cpu_an_hour(stack, IDLE_SECONDS)}
            async with aiohttp.ClientSession() as http:
                client = await open_client(http, stack, "idle")
                for count in (1_000, MANY):
                    await client.create_many(count - max(cpu))
                    await asyncio.sleep(SETTLE_SECONDS)
                    # Else Postgres writes for 4.5 minutes more what the creates have left.
                    await client.bare.fetch("CHECKPOINT")
                    cpu[count] = await idle_cpu_an_hour(stack, IDLE_SECONDS)
                await client.bare.close()
            with running_agent(directory, "footprint") as agent:
                await stampede(stack, agent, SCENARIOS[0])
            return Footprint(started, idle, usage(stack), cpu)


def show_footprint(measured: Footprint) -> None:
    """Print memory and idle CPU of each part, and the starts."""
    table = Table(title=f"Footprint: MB (PSS), and CPU seconds of an idle hour (from {IDLE_SECONDS} s)")
    counts = list(measured.idle_cpu)
    for heading in ("part", "MB idle", "MB after 200 runs", *[f"CPU s/h, {count:,}" for count in counts]):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, idle in measured.idle.items():
        cpu = [f"{measured.idle_cpu[count][part]:.0f}" for count in counts]
        table.add_row(part, f"{idle.megabytes:.0f}", f"{measured.after[part].megabytes:.0f}", *cpu)
    sums = {count: sum(parts.values()) for count, parts in measured.idle_cpu.items()}
    megabytes = [f"{total_megabytes(parts):.0f}" for parts in (measured.idle, measured.after)]
    table.add_row("all", *megabytes, *[f"{sums[count]:.0f}" for count in counts])
    console = Console(width=110)
    console.print(table)
    console.print(f"memory idle: {megabytes[0]} MB (target ≤ 600)")
    console.print(f"idle CPU at {MANY:,} over at 0: {sums[MANY] / sums[0]:.2f} (target ≤ 1.1)")
    console.print(
        f"start of an empty clone, with the install: {measured.startup.cold:.1f} s; "
        f"again: {measured.startup.warm:.1f} s (target ≤ 8)"
    )


async def measure_all_streams() -> Streams:
    """Idle streams, messages, and token deltas where a redis-server can be had."""
    with open_folder() as directory:
        redis = EmbeddedRedis.find(free_port(), log=directory / "redis.log")
        url = redis.start() if redis is not None else None
        try:
            with running_stack(directory, **({"redis_url": url} if url is not None else {})) as stack:
                return await measure_streams(stack, url)
        finally:
            if redis is not None:
                redis.stop()


def show_streams(measured: Streams) -> None:
    """Print what they cost and how late they are."""
    console = Console(width=110)
    console.print(
        f"memory of an idle stream, of {IDLE_STREAMS:,}: {measured.idle_kilobytes:.0f} kB (target ≤ 50); "
        f"CPU of them all: {measured.idle_cpu_a_minute:.1f} s a minute"
    )
    console.print(
        f"POST /messages to the reader: p50 {measured.full_p50:.1f} ms, p95 {measured.full_p95:.1f} ms"
    )
    if measured.delta_p50 is None or measured.direct_p50 is None:
        console.print("token deltas: not measured, no redis-server")
        return
    console.print(
        f"token delta, XADD to the reader: p50 {measured.delta_p50:.1f} ms, p95 {measured.delta_p95:.1f} ms; "
        f"from Redis itself p50 {measured.direct_p50:.1f} ms; "
        f"added {measured.delta_p50 - measured.direct_p50:.1f} ms (target ≤ 20)"
    )


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=PARTS, help="which parts; all by default")
    parser.add_argument("--runs", type=int, default=3, help="of the stampedes")
    parser.add_argument("--only", type=int, help="only the stampedes of this many schedules")
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    result: dict[str, object] = {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.system(),
        }
    }
    if "stampedes" in options.parts:
        scenarios = [item for item in SCENARIOS if options.only in (None, item.schedules)]
        stampedes = asyncio.run(measure(options.runs, scenarios))
        show(stampedes)
        result["stampedes"] = [item.as_json() for item in stampedes]
    if "requests" in options.parts:
        requests = asyncio.run(measure_requests())
        show_requests(requests)
        result["requests"] = [item.as_json() for item in requests]
    if "rpc" in options.parts:
        rpc = asyncio.run(measure_rpc())
        show_rpc(rpc)
        result["rpc"] = [item.as_json() for item in rpc]
    if "messages" in options.parts:
        messages = asyncio.run(measure_messages())
        show_messages(messages)
        result["messages"] = messages.as_json()
    if "auth" in options.parts:
        auth = asyncio.run(measure_auth())
        show_auth(auth)
        result["auth"] = [item.as_json() for item in auth]
    if "footprint" in options.parts:
        footprint = asyncio.run(measure_footprint())
        show_footprint(footprint)
        result["footprint"] = asdict(footprint)
    if "streams" in options.parts:
        streams = asyncio.run(measure_all_streams())
        show_streams(streams)
        result["streams"] = streams.as_json()
    options.output.write_text(json.dumps(result, indent=2))


main()
