"""The documents of the project, and what stands in their code blocks and tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for _, of, body in _BLOCK.findall(path.read_text()) if of == language]


def commands(path: Path) -> list[str]:
    """The commands of a document's sh blocks, one a line but for those that a backslash continues."""
    lines = "\n".join(blocks(path, "sh")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def first_cells(path: Path, heading: str) -> list[str]:
    """What stands as code in the first column of all tables below a heading, up to the next one."""
    _, _, below = path.read_text().partition(f"\n{heading}\n")
    section = re.split(r"^#+ ", below, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
