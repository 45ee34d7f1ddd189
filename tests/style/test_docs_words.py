"""Lists in the documents are those of the code."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from agentex.runs.models import RunCause, RunReason, RunStatus
from agentex.settings import Settings
from agentex.telemetry import metrics
from tests.style.documents import DOCUMENTS, ROOT, first_cells

GLOSSARY = ROOT / "docs/glossary.md"
OPERATIONS = ROOT / "docs/operations.md"

# The variable of clients and agents that names this server.
OF_CLIENTS = {"AGENTEX_BASE_URL"}


@pytest.mark.parametrize(
    ("heading", "words"),
    [("## Status of a run", RunStatus), ("## Reason of a run", RunReason), ("## Cause of a run", RunCause)],
)
def test_the_glossary_has_each_word_of_a_run_once(heading: str, words: type[StrEnum]) -> None:
    assert sorted(first_cells(GLOSSARY, heading)) == sorted(words)


def exposed(metric: MetricWrapperBase) -> str:
    """The name under which Prometheus finds it."""
    family = next(iter(metric.describe()))
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_operations_has_each_metric_once() -> None:
    declared = [exposed(value) for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    assert len(declared) > 0
    assert sorted(first_cells(OPERATIONS, "## Metrics")) == sorted(declared)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_settings_in_documents_exist(path: Path) -> None:
    known = {f"AGENTEX_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bAGENTEX_[A-Z_]+[A-Z]\b", path.read_text())) - known - OF_CLIENTS == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []
