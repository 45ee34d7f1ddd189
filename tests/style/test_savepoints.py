"""Streams' cursors know a row's transaction by its xmin, which inside a SAVEPOINT is another's."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / "agentex").rglob("*.py"), *(ROOT / "database").rglob("*.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_uses_savepoints(path: Path) -> None:
    """Nor PL/pgSQL's EXCEPTION blocks, which are the same."""
    said = path.read_text()
    if path.name == "cursor.py":
        said = said.replace("SAVEPOINT, whose rows", "")
    assert [
        word for word in ("begin_nested", "SAVEPOINT", "create_savepoint", "EXCEPTION WHEN") if word in said
    ] == []
