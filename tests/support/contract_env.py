"""Environments for the packages that tests/contract uses, built by uv from their lock files.

Both packages have the import name `agentex`, as the server has, so none of them can be installed beside it.
One is built anew when its lock file or its Python has changed; others wait for whoever builds it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-contract"
LOCKS = ROOT / "tests/contract"
# The agents' SDK needs a newer Python than the server; this names one where the search below finds none.
PYTHON_SETTING = "AGENTEX_TEST_PYTHON312"
SDK_MINORS = (12, 13)


def client_python() -> Path:
    """The interpreter of an environment with agentex-client, in the Python that runs the tests."""
    return built("client", Path(sys.executable), imports="agentex")


def sdk_python(base: Path) -> Path:
    """The interpreter of an environment with agentex-sdk, made with `base`."""
    return built("sdk", base, imports="agentex.lib.adk, langgraph.graph")


def built(name: str, base: Path, *, imports: str) -> Path:
    """The interpreter of the environment `name`. Raises CalledProcessError when it cannot be built."""
    lock = LOCKS / f"requirements-{name}.txt"
    home, stamp = HOME / name, HOME / name / "built-from"
    python = home / "bin/python"
    wanted = hashlib.sha256(lock.read_bytes() + os.fsencode(base.resolve())).hexdigest()
    with _locked(HOME / f"{name}.lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            _uv("venv", "--no-project", "--python", str(base), str(home))
            _uv("pip", "install", "--require-hashes", "--python", str(python), "--requirements", str(lock))
            # Once, before many processes start at the same time: the first import writes the bytecode.
            subprocess.run([python, "-c", f"import {imports}"], check=True, env=environment(), cwd=home)
            stamp.write_text(wanted)
    return python


def environment() -> dict[str, str]:
    """This process's environment without what would change how the other Python works."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {
        # litellm, which the SDK brings, would ask the internet for prices at each import.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def find_sdk_python() -> Path | None:
    """A Python that agentex-sdk takes: from the setting, uv, pyenv or PATH; None where there is none."""
    if given := os.environ.get(PYTHON_SETTING):
        return Path(given)
    for minor in SDK_MINORS:
        for candidate in _candidates(minor):
            if candidate.exists():
                return candidate
    return None


def _candidates(minor: int) -> Iterator[Path]:
    found = subprocess.run(
        [find_uv_bin(), "python", "find", "--no-project", "--system", "--no-python-downloads", f"3.{minor}"],
        capture_output=True,
        text=True,
    )
    if found.returncode == 0:
        yield Path(found.stdout.strip())
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from sorted(versions.glob(f"3.{minor}.*/bin/python"))
    if on_path := shutil.which(f"python3.{minor}"):
        yield Path(on_path)


def _uv(*arguments: str) -> None:
    subprocess.run([find_uv_bin(), "--quiet", *arguments], check=True, cwd=ROOT)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
