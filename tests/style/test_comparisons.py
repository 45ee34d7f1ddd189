"""Secrets are compared in constant time: `==` tells by how long it takes how far a guess is right."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "agentex").rglob("*.py"))
_SECRET = re.compile(r"(^|_)(secret|signature|password|passphrase|digest|hmac|mac|api_key|bearer|jwt)s?$")
# What only has such a name: a column in SQL, of hashes that are made before they are looked for.
_NO_SECRETS = {"col", "len", "type"}


def named(node: ast.expr) -> str:
    """The word that a value goes by."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    if isinstance(node, ast.Call):
        word = named(node.func)
        return "digest" if word in {"hexdigest", "digest"} else word
    return ""


def compared(code: str) -> list[str]:
    """Comparisons by == and != with something that is called like a secret."""
    found: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
            continue
        words = [named(side) for side in (node.left, *node.comparators)]
        if any(_SECRET.search(word) for word in words) and not _NO_SECRETS & set(words):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_secret_is_compared_by_equality(path: Path) -> None:
    assert compared(path.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "signature == expected",
        "expected != given.secret",
        "hmac.new(a, b, c).hexdigest() == given",
        "headers['x-hub-signature'] == x or fields['signature'] == x",
        "api_key == other",
    ],
)
def test_such_a_comparison_would_be_found(code: str) -> None:
    assert len(compared(code)) == 1


def test_signatures_are_compared_in_constant_time() -> None:
    code = (ROOT / "agentex/forward/signatures.py").read_text()
    assert "hmac.compare_digest(" in code
