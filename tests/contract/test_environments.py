"""The environments of the contract tests: built from their locks, once, by whoever comes first."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import contract_env
from tests.support.contract_env import built, client_python, find_sdk_python, sdk_python

pytestmark = [pytest.mark.xdist_group("contract-client"), pytest.mark.timeout(300)]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Environments in a folder of the test's own, with a lock of one small package."""
    lines = (contract_env.LOCKS / "requirements-client.txt").read_text().split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("idna=="))
    (tmp_path / "requirements-small.txt").write_text("\n".join(lines[start : start + 3]) + "\n")
    monkeypatch.setattr(contract_env, "HOME", tmp_path / "environments")
    monkeypatch.setattr(contract_env, "LOCKS", tmp_path)
    return tmp_path


def stamp_time(folder: Path) -> int:
    return (folder / "environments/small/built-from").stat().st_mtime_ns


def test_an_environment_is_built_once_however_many_need_it(elsewhere: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        builds = [pool.submit(built, "small", Path(sys.executable), imports="idna") for _ in range(4)]
    assert len({build.result() for build in builds}) == 1
    first = stamp_time(elsewhere)
    built("small", Path(sys.executable), imports="idna")
    assert stamp_time(elsewhere) == first


def test_an_environment_is_built_anew_for_a_new_lock(elsewhere: Path) -> None:
    built("small", Path(sys.executable), imports="idna")
    first = stamp_time(elsewhere)
    lock = elsewhere / "requirements-small.txt"
    lock.write_text(f"# changed\n{lock.read_text()}")
    built("small", Path(sys.executable), imports="idna")
    assert stamp_time(elsewhere) > first


def test_an_environment_takes_nothing_but_what_is_locked(elsewhere: Path) -> None:
    lock = elsewhere / "requirements-small.txt"
    lock.write_text(lock.read_text().replace("sha256:", "sha256:0000"))
    with pytest.raises(subprocess.CalledProcessError):
        built("small", Path(sys.executable), imports="idna")


def test_the_setting_names_the_python_of_the_sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(contract_env.PYTHON_SETTING, str(tmp_path / "python"))
    assert find_sdk_python() == tmp_path / "python"


@pytest.mark.parametrize("package", ["agentex-client", "agentex-sdk"])
def test_the_package_is_that_of_pypi_and_not_this_project(package: str) -> None:
    base = find_sdk_python()
    if package == "agentex-sdk" and base is None:
        pytest.skip("no Python for agentex-sdk")
    python = client_python() if base is None or package == "agentex-client" else sdk_python(base)
    told = f"import importlib.metadata as m, agentex; print(m.version({package!r}), agentex.__file__)"
    result = subprocess.run(
        [python, "-c", told],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env=contract_env.environment(),
    )
    version, file = result.stdout.split()
    locked = (contract_env.LOCKS / f"requirements-{package.removeprefix('agentex-')}.in").read_text()
    assert f"\n{package}=={version}\n" in f"\n{locked}"
    assert Path(file).is_relative_to(contract_env.HOME)
