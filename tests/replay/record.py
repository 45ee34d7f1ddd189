"""Record the histories that test_replay.py replays: each play, on a dev server of its own.

    python -m tests.replay.record                     all of them, into tests/replay/histories
    python -m tests.replay.record tick-retry          one
    python -m tests.replay.record --output /tmp/new   somewhere else

An existing history is written over: see docs/changing-workflows.md before you commit that.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio import activity
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleHandle,
    WorkflowHandle,
    WorkflowHistory,
)
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker, WorkflowRunner

from agentex.clocks.temporal import ensure
from agentex.ids import clock_schedule_id, new_id, page_workflow_id
from agentex.runs.workflow import LAUNCH_PAGE, PageRequest, PageResult, PageWorkflow
from agentex.schedules.workflow import OPEN_DUE, OpenRequest, OpenResult, TickWorkflow
from agentex.settings import Settings, WorkerQueue
from agentex.temporal import Temporal
from tests.replay.histories import FOLDER, IDENTITY, runner, write
from tests.replay.plays import PLAYS, PagePlay, TickPlay
from tests.support.temporal import start_temporal

# A poll for the workflow that a Schedule started: nothing tells of it.
POLL_SECONDS = 0.05
GIVE_UP_SECONDS = 90


class ScriptedActivities:
    """Both activities; each call takes the next answer of the play."""

    def __init__(self, play: TickPlay | PagePlay) -> None:
        self._answers: Iterator[object] = iter(play.answers)
        self._hanging: list[asyncio.Event] = []

    @activity.defn(name=OPEN_DUE)
    async def open_due(self, _: OpenRequest) -> OpenResult:
        """Open as the play says."""
        answer = await self._next()
        assert isinstance(answer, OpenResult)
        return answer

    @activity.defn(name=LAUNCH_PAGE)
    async def launch_page(self, _: PageRequest) -> PageResult:
        """Launch as the play says."""
        answer = await self._next()
        assert isinstance(answer, PageResult)
        return answer

    async def _next(self) -> object:
        answer = next(self._answers)
        for hanging in self._hanging:
            hanging.set()
        if isinstance(answer, ApplicationError):
            raise answer
        if answer == "hang":
            # Until Temporal has missed its heartbeat and starts the attempt after it.
            self._hanging.append(asyncio.Event())
            await self._hanging[-1].wait()
            raise ApplicationError("nobody waits for this attempt any more")
        return answer


@dataclass(frozen=True)
class Recorder:
    """A client with a name that is nobody's, and settings under the play's name."""

    client: Client
    settings: Settings

    async def tick(self) -> WorkflowHandle[TickWorkflow, int]:
        """Start a tick as in production: the Schedule of the shared minute rings at once when it is new."""
        await ensure(Temporal(self.client, self.settings), self.settings, None)
        schedule_id = clock_schedule_id(self.settings.temporal_task_queue, None)
        schedule = self.client.get_schedule_handle(schedule_id)
        started = await _started_by(schedule)
        await schedule.delete()
        return self.client.get_workflow_handle_for(
            TickWorkflow.run, started.workflow_id, run_id=started.first_execution_run_id
        )

    async def page(self) -> WorkflowHandle[PageWorkflow, None]:
        """Start a page."""
        batch_id, prefix = new_id(), self.settings.temporal_task_queue
        return await self.client.start_workflow(
            PageWorkflow.run,
            PageRequest(str(batch_id), "deliver", 0),
            id=page_workflow_id(prefix, batch_id, "deliver", 0),
            task_queue=self.settings.task_queue(WorkerQueue.DELIVER),
        )

    async def record(self, play: TickPlay | PagePlay, runner: WorkflowRunner) -> WorkflowHistory:
        """Play it to its end; the history is that of its first run."""
        is_tick = isinstance(play, TickPlay)
        scripted = ScriptedActivities(play)
        async with Worker(
            self.client,
            task_queue=self.settings.task_queue(WorkerQueue.TICKS if is_tick else WorkerQueue.DELIVER),
            workflows=[TickWorkflow if is_tick else PageWorkflow],
            activities=[scripted.open_due, scripted.launch_page],
            workflow_runner=runner,
            identity=IDENTITY,
            graceful_shutdown_timeout=timedelta(seconds=5),
        ):
            handle = await (self.tick() if is_tick else self.page())
            await handle.result()
        run_id = handle.first_execution_run_id or handle.run_id
        return await self.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()


async def _started_by(schedule: ScheduleHandle) -> ScheduleActionExecutionStartWorkflow:
    """The first workflow that a Schedule starts."""
    while True:
        actions = (await schedule.describe()).info.recent_actions
        if actions and isinstance(actions[0].action, ScheduleActionExecutionStartWorkflow):
            return actions[0].action
        await asyncio.sleep(POLL_SECONDS)


async def record(address: str, names: Sequence[str], output: Path) -> None:
    """Record these plays on the Temporal at `address`, one after the other."""
    client = await Client.connect(address, identity=IDENTITY)
    for name in names:
        settings = Settings(temporal_address=address, temporal_task_queue=name)
        play = PLAYS[name]
        async with asyncio.timeout(GIVE_UP_SECONDS):
            with runner(play.rounds_per_history if isinstance(play, PagePlay) else None) as chosen:
                history = await Recorder(client, settings).record(play, chosen)
        write(output / f"{name}.json", history)
        sys.stdout.write(f"{name}: {len(history.events)} events\n")


def main() -> None:
    """Record what the command line names, or everything."""
    parser = argparse.ArgumentParser(description="Record histories of the workflows")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PLAYS))
    parser.add_argument("--output", type=Path, default=FOLDER)
    given = parser.parse_args()
    if unknown := set(given.names) - PLAYS.keys():
        parser.error(f"no such play: {', '.join(sorted(unknown))}")
    # Attempts that fail are part of the plays.
    logging.getLogger("temporalio.activity").setLevel(logging.CRITICAL)
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        server = start_temporal(Path(directory))
        try:
            asyncio.run(record(server.address, given.names or list(PLAYS), given.output))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
