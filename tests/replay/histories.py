"""Histories as files: one line an event, without what tells of the machine that recorded them."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast
from unittest.mock import patch

from temporalio.client import WorkflowHistory
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from agentex.runs import workflow as page_workflow

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

FOLDER = Path(__file__).parent / "histories"
IDENTITY = "recorder"
# Who recorded it and with which build; a replay asks for none of these.
_DROPPED = {"binaryChecksum", "deploymentOptions", "stackTrace", "workerInstanceKey", "workerVersion"}


def write(path: Path, history: WorkflowHistory) -> None:
    """Write one history, scrubbed, in the form that `temporal workflow show --output json` has too."""
    events = [scrubbed(cast("JSON", event)) for event in history.to_json_dict()["events"]]
    lines = ",\n".join(json.dumps(event, separators=(",", ":"), sort_keys=True) for event in events)
    path.write_text(f'{{"events":[\n{lines}\n]}}\n')


def read(path: Path) -> WorkflowHistory:
    """Read one back; its first event knows the workflow's id."""
    history = WorkflowHistory.from_json("", path.read_text())
    started = history.events[0].workflow_execution_started_event_attributes
    return WorkflowHistory(started.workflow_id, history.events)


def workflow_type(history: WorkflowHistory) -> str:
    """The name of the workflow that was recorded."""
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name


def scrubbed(value: JSON) -> JSON:
    """The same without identities, stack traces and builds."""
    if isinstance(value, list):
        return [scrubbed(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: scrubbed(item) for key, item in value.items() if key not in _DROPPED}
    return kept | ({"identity": IDENTITY} if "identity" in kept else {})


@contextmanager
def runner(rounds_per_history: int | None) -> Generator[WorkflowRunner]:
    """What runs workflows as in production, or with that many rounds in a page's history.

    The sandbox would import the module anew, with the number as it is written.
    """
    if rounds_per_history is None:
        yield SandboxedWorkflowRunner()
        return
    with patch.object(page_workflow, "ROUNDS_PER_HISTORY", rounds_per_history):
        yield UnsandboxedWorkflowRunner()
