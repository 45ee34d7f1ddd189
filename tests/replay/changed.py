"""Copies of the workflows as somebody might change them, for the proof that a replay notices.

Standard library and temporalio only, as in the originals. Each is a short form of what its original does,
with one command more or less, or another order.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias, cast

from temporalio import workflow

MINUTE = timedelta(minutes=1)
JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"
Document: TypeAlias = "dict[str, JSON]"


async def _activity(name: str, argument: JSON) -> Document:
    return cast(
        "Document", await workflow.execute_activity(name, argument, start_to_close_timeout=timedelta(days=1))
    )


async def _wait(seconds: JSON) -> None:
    await workflow.sleep(timedelta(seconds=cast("float", seconds)))


async def _start(prefix: JSON, batch_id: JSON, lane: JSON, page: int) -> None:
    await workflow.start_child_workflow(
        "PageWorkflow", {}, id=f"{prefix}:page:{batch_id}:{lane}:{page}", task_queue="anywhere"
    )


async def _start_all(prefix: JSON, opened: Document) -> None:
    for lane in cast("list[Document]", opened["lanes"]):
        for page in range(cast("int", lane["count"])):
            await _start(prefix, opened["batch_id"], lane["lane"], page)


@workflow.defn(name="PageWorkflow")
class PageThatWaitsFirst:
    """A timer before the first activity."""

    @workflow.run
    async def run(self, page: Document) -> None:
        """Wait, then launch."""
        await _wait(1)
        await _activity("launch_page", page)


@workflow.defn(name="PageWorkflow")
class PageWithAPatch:
    """The same timer, for new histories only."""

    @workflow.run
    async def run(self, page: Document) -> None:
        """Launch as each history began."""
        if workflow.patched("wait-first"):
            await _wait(1)
        await _activity("launch_page", page)


@workflow.defn(name="PageWorkflow")
class PageWithAnotherActivity:
    """The activity has another name."""

    @workflow.run
    async def run(self, page: Document) -> None:
        """Launch under a new name."""
        while (result := await _activity("send_page", page))["next_attempt_in_seconds"] is not None:
            await _wait(result["next_attempt_in_seconds"])


@workflow.defn(name="PageWorkflow")
class PageThatDoesNotWait:
    """No timer between rounds."""

    @workflow.run
    async def run(self, page: Document) -> None:
        """Launch again at once."""
        while (await _activity("launch_page", page))["next_attempt_in_seconds"] is not None:
            pass


@workflow.defn(name="PageWorkflow")
class PageThatNeverStartsAnew:
    """Any number of rounds in one history, and a minute between them: how long a timer is may change."""

    @workflow.run
    async def run(self, page: Document) -> None:
        """Launch and wait for ever."""
        while (await _activity("launch_page", page))["next_attempt_in_seconds"] is not None:
            await workflow.sleep(MINUTE)


@workflow.defn(name="TickWorkflow")
class TickThatOpensOnce:
    """One round, whatever is owed."""

    @workflow.run
    async def run(self, tick: Document) -> int:
        """Open once."""
        opened = await _activity("open_due", {})
        await _start_all(tick["prefix"], opened)
        return 1


@workflow.defn(name="TickWorkflow")
class TickThatStartsOnePageAfterTheOther:
    """Each page is awaited before the next one is started."""

    @workflow.run
    async def run(self, tick: Document) -> int:
        """Open and start in a row."""
        rounds, more = 0, True
        while more:
            opened = await _activity("open_due", {})
            await _start_all(tick["prefix"], opened)
            rounds, more = rounds + 1, bool(opened["more"])
        return rounds


@workflow.defn(name="TickWorkflow")
class TickThatNamesPagesAnew:
    """The ids of pages have another prefix."""

    @workflow.run
    async def run(self, tick: Document) -> int:
        """Open, and start under new ids."""
        opened = await _activity("open_due", {})
        await _start_all(f"{tick['prefix']}:v2", opened)
        return 1


@workflow.defn(name="TickWorkflow")
class TickThatWaitsAfterwards:
    """A timer at the end."""

    @workflow.run
    async def run(self, tick: Document) -> int:
        """Open, start, wait."""
        opened = await _activity("open_due", {})
        await _start_all(tick["prefix"], opened)
        await workflow.sleep(MINUTE)
        return 1
