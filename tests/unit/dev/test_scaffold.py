"""The files a newcomer runs first: dev.sh, the Makefile and the locked requirements."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ["requirements.txt", "requirements-test.txt"]


def pins(lock: str) -> dict[str, str]:
    """Package to version, of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*])?==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def requirements() -> set[str]:
    """The names in all tables of pyproject.toml."""
    return set(
        re.findall(r'^    "([a-z0-9-]+)(?:\[[^]]*])?>=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_no_address_and_no_path(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert re.findall(r"^.*(?:://|^-|file:|--index|--find-links| @ ).*$", text, re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(lock: str) -> None:
    blocks = re.split(r"^(?=[a-z])", (ROOT / lock).read_text(), flags=re.MULTILINE)
    assert [block for block in blocks if "==" in block and "--hash=sha256:" not in block] == []


def test_both_locks_agree_and_hold_every_requirement() -> None:
    runtime, test = (pins(lock) for lock in LOCKS)
    assert {name: test.get(name) for name in runtime} == runtime
    assert requirements() - test.keys() == set()


def test_dev_sh_is_short_and_valid() -> None:
    script = ROOT / "dev.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert (len(script.read_text().splitlines()) <= 40, script.stat().st_mode & 0o111) == (True, 0o111)


def test_dev_sh_without_python_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dev.sh").write_text((ROOT / "dev.sh").read_text())
    (tmp_path / "bin").mkdir()
    for tool in ("dirname", "bash"):
        path = subprocess.run(
            ["bash", "-c", f"command -v {tool}"], capture_output=True, text=True, check=True
        )
        (tmp_path / "bin" / tool).symlink_to(path.stdout.strip())
    result = subprocess.run(
        ["bash", str(tmp_path / "dev.sh")],
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
    )
    hint = "apt install python3 python3-venv (macOS: brew install python@3.13)"
    assert (result.returncode, result.stderr) == (1, f"dev.sh: no Python 3.11 or newer: {hint}\n")


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in listed.splitlines()} == set(phony.group(1).replace("\\", " ").split())
