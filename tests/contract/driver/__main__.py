"""Runs the checks of this folder with the client of its environment, and writes down what came of each.

    python tests/contract/driver --mode sync --server URL --agent URL --report FILE [--module NAME]

The report: {"checks": {name: error or null}, "called": [method names], "methods": [those that there are]}.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import time
import traceback
from pathlib import Path

from calls import Api, close_streams, methods

MODULES = (
    "agents",
    "checkpoints",
    "deployments",
    "errors",
    "events",
    "messages",
    "responses",
    "rpc",
    "schedules",
    "spans",
    "states",
    "streams",
    "tasks",
    "trackers",
    "webhooks",
)


# A stream that never says what is waited for would wait for good: its pings keep it alive.
CHECK_SECONDS = 90


def checks(module):
    """The functions check_* of a module."""
    loaded = importlib.import_module(module)
    found = [value for name, value in vars(loaded).items() if name.startswith("check_")]
    return [value for value in found if inspect.iscoroutinefunction(value)]


async def outcome(check, api):
    """None, or why it failed and what it had asked by then."""
    before = len(api.requests)
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check(api)
    except Exception:  # noqa: BLE001 - told to pytest, word by word
        asked = [f"{method} {path} -> {status}" for method, path, status, *_ in api.requests[before:]]
        return "\n".join([traceback.format_exc(), "It had asked:", *asked[-15:]])
    finally:
        await close_streams()
    return None


async def main(given):
    """All checks of the modules, one after the other."""
    api = Api(given.mode, given.server, given.agent)
    report = {"checks": {}, "seconds": {}, "methods": sorted(methods(api.client))}
    for module in [given.module] if given.module else MODULES:
        for check in checks(module):
            name, start = f"{module}.{check.__name__}", time.monotonic()
            report["checks"][name] = await outcome(check, api)
            report["seconds"][name] = round(time.monotonic() - start, 2)
    report["called"] = sorted(api.called)
    await api.close()
    given.report.write_text(json.dumps(report))
    # Not by the interpreter's end, which waits for threads: one may still read a stream without an end.
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["sync", "async"], required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--module")
    asyncio.run(main(parser.parse_args()))
