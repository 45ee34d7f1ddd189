"""The limits of the house (style.md): sizes of functions and files, names that are not used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("agentex", "tests") for path in (ROOT / folder).rglob("*.py"))
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 5
# Words with no meaning of their own here (design.md §2).
BANNED_NAMES = {"manager", "processor", "helper", "helpers", "util", "utils", "job"}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_short_enough(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short_enough(path: Path) -> None:
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize(
    "path",
    # FastAPI handlers and pytest tests take what they need by parameter, one dependency each.
    [path for path in FILES if path.name != "api.py" and "tests" not in path.relative_to(ROOT).parts],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_functions_take_few_positional_parameters(path: Path) -> None:
    many = [
        node.name
        for node in functions(path)
        if len([a for a in node.args.args if a.arg not in {"self", "cls"}]) > MAX_PARAMETERS
    ]
    assert many == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_of_the_vocabulary(path: Path) -> None:
    words = {part for name in path.relative_to(ROOT).with_suffix("").parts for part in name.split("_")}
    classes = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}
    assert words & BANNED_NAMES == set()
    assert [name for name in classes if name.lower().endswith(tuple(BANNED_NAMES))] == []


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=str)
def test_init_files_are_empty(path: Path) -> None:
    assert path.read_text() == ""
