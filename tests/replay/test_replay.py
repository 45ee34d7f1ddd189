"""Each workflow, as it is now, does what the recorded histories say (docs/changing-workflows.md)."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, WorkflowReplayResult
from temporalio.workflow import NondeterminismError

from agentex import worker
from agentex.runs.workflow import ROUNDS_PER_HISTORY, PageWorkflow
from agentex.schedules.workflow import TickWorkflow
from tests.replay import changed, record
from tests.replay.histories import FOLDER, IDENTITY, JSON, read, runner, workflow_type
from tests.replay.plays import PLAYS, PagePlay

ROOT = Path(__file__).parents[2]
WORKFLOWS: list[type] = [TickWorkflow, PageWorkflow]
FILES = sorted(FOLDER.glob("*.json"))
by_name = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


async def replay(name: str, workflows: list[type]) -> WorkflowReplayResult:
    """What comes of one history; a failure is in the result."""
    play = PLAYS.get(name)
    rounds = play.rounds_per_history if isinstance(play, PagePlay) else None
    with runner(rounds) as chosen:
        replayer = Replayer(workflows=workflows, workflow_runner=chosen)
        return await replayer.replay_workflow(read(FOLDER / f"{name}.json"), raise_on_replay_failure=False)


@by_name
async def test_the_workflows_do_what_was_recorded(path: Path) -> None:
    assert (await replay(path.stem, WORKFLOWS)).replay_failure is None


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("page-one-round", changed.PageThatWaitsFirst),
        ("page-one-round", changed.PageWithAnotherActivity),
        ("page-waits", changed.PageThatDoesNotWait),
        ("page-lost-worker", changed.PageThatDoesNotWait),
        ("page-new-history", changed.PageThatNeverStartsAnew),
        ("tick-nothing-owed", changed.TickThatWaitsAfterwards),
        ("tick-one-round", changed.TickThatStartsOnePageAfterTheOther),
        ("tick-retry", changed.TickThatNamesPagesAnew),
        ("tick-rounds", changed.TickThatOpensOnce),
    ],
)
async def test_a_changed_workflow_is_noticed(name: str, copy: type) -> None:
    assert isinstance((await replay(name, [copy])).replay_failure, NondeterminismError)


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("page-one-round", changed.PageThatDoesNotWait),
        ("page-one-round", changed.PageWithAPatch),
        ("page-waits", changed.PageThatNeverStartsAnew),
        ("tick-nothing-owed", changed.TickThatNamesPagesAnew),
        ("tick-retry", changed.TickThatOpensOnce),
        ("tick-retry", changed.TickThatStartsOnePageAfterTheOther),
    ],
)
async def test_what_the_changed_copies_did_not_change_replays(name: str, copy: type) -> None:
    """So that the test above fails for the change, and not for a bad copy."""
    assert (await replay(name, [copy])).replay_failure is None


def test_a_page_s_histories_do_not_become_shorter() -> None:
    """A page under way may have 200 rounds behind it; with a lower number its replay would end early."""
    assert ROUNDS_PER_HISTORY >= 200


def defined_workflows() -> set[str]:
    """The names of all classes below agentex/ that are workflows."""
    return {
        node.name
        for path in (ROOT / "agentex").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and "workflow.defn" in map(ast.unparse, node.decorator_list)
    }


def test_every_workflow_has_a_history() -> None:
    imported = {
        name for name, value in vars(worker).items() if hasattr(value, "__temporal_workflow_definition")
    }
    recorded = {workflow_type(read(path)) for path in FILES}
    assert imported == defined_workflows() == recorded == {workflow.__name__ for workflow in WORKFLOWS}


def test_the_recorder_can_make_each_history_again() -> None:
    assert {path.stem for path in FILES} == PLAYS.keys()


def last_event(history: WorkflowHistory) -> str:
    return history.events[-1].WhichOneof("attributes") or ""


def test_the_histories_tell_what_they_are_named_for() -> None:
    """A retry that did not happen would leave a history as good as any other."""
    texts = {path.stem: path.read_text() for path in FILES}
    attempts = {name: text.count('"attempt":2') for name, text in texts.items() if '"attempt":2' in text}
    assert attempts == {"tick-retry": 1, "page-retry": 1, "page-lost-worker": 1}
    assert "TIMEOUT_TYPE_HEARTBEAT" in texts["page-lost-worker"]
    assert texts["page-waits"].count('"EVENT_TYPE_TIMER_FIRED"') == 2
    assert texts["tick-rounds"].count('"EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED"') == 4
    assert "TemporalScheduledStartTime" in texts["tick-one-round"]
    ends = {last_event(read(path)) for path in FILES if path.stem != "page-new-history"}
    assert ends == {"workflow_execution_completed_event_attributes"}
    assert last_event(read(FOLDER / "page-new-history.json")) == (
        "workflow_execution_continued_as_new_event_attributes"
    )


def identities(value: JSON) -> set[str]:
    """All that is called identity, however deep."""
    if isinstance(value, list):
        return {found for item in value for found in identities(item)}
    if not isinstance(value, dict):
        return set()
    own = {str(value["identity"])} if "identity" in value else set[str]()
    return own | identities([*value.values()])


@by_name
def test_a_history_tells_nothing_of_who_recorded_it(path: Path) -> None:
    text = path.read_text()
    assert identities(json.loads(text)) <= {IDENTITY}
    assert [mark for mark in ("stackTrace", ".py", "@", "/home", "workerVersion") if mark in text] == []


def test_a_play_is_recorded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["record", "tick-one-round", "--output", str(tmp_path)])
    record.main()
    new, old = read(tmp_path / "tick-one-round.json"), read(FOLDER / "tick-one-round.json")
    assert workflow_type(new) == workflow_type(old)
    assert kinds(new) == kinds(old)


def kinds(history: WorkflowHistory) -> list[str]:
    """The events but for workflow tasks, of which there are as many as the server liked."""
    found = [event.WhichOneof("attributes") or "" for event in history.events]
    return sorted(kind for kind in found if not kind.startswith("workflow_task"))
