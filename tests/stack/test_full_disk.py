"""A full disk: told in one line, and gone on with when there is space again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentex.dev.processes import full_disk, wait_until
from tests.stack.dev_stack import DevStack
from tests.support.postgres import open_folder
from tests.support.processes import answers

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux can mount a small disk"
    ),
]

MakeStack = Callable[..., DevStack]
MEGABYTE = 1_000_000


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of as many MB as the parameter says."""
    place = open_folder()
    options = f"size={request.param * MEGABYTE},mode=0755"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


def fill(disk: Path) -> Path:
    """Take all the space that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (MEGABYTE, 4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    return filler


@pytest.mark.parametrize("disk", [1], indirect=True)
def test_disk_without_a_byte_is_named(make_stack: MakeStack, disk: Path) -> None:
    fill(disk)
    stack = make_stack(data_directory=disk / ".agentex")
    place = stack.data_directory.resolve()
    said = f"agentex dev: cannot write to {place}: the disk of {place} is full (0 MB free)"
    assert stack.refused() == said


@pytest.mark.parametrize("disk", [24], indirect=True)
def test_disk_too_small_for_a_cluster_is_named_with_the_log(make_stack: MakeStack, disk: Path) -> None:
    stack = make_stack(data_directory=disk / ".agentex")
    said = stack.refused().splitlines()
    assert (said[-1].startswith("agentex dev: initdb ended with exit code 1 ("), len(said)) == (True, 2)
    assert said[-1].endswith(f"No space left on device); see {stack.log_of('postgres')}")
    assert "No space left on device" in stack.log_of("postgres").read_text()


@pytest.mark.parametrize("disk", [250], indirect=True)
def test_stack_lives_through_a_full_disk(make_stack: MakeStack, disk: Path) -> None:
    stack = make_stack(data_directory=disk / ".agentex")
    stack.start()
    filler = fill(disk)
    logs = stack.log_of("postgres").parent
    stack.children()["postgres"].kill()
    said = (
        f"agentex dev: postgres ended with signal SIGKILL; the disk of {logs} is full (0 MB free); "
        f"see {stack.log_of('postgres')}; starting it again in 1 s"
    )
    wait_until(lambda: said in stack.supervisor.output(), "the line about the disk", 30)
    wait_until(lambda: not answers(f"{stack.url}/readyz"), "the API noticing", 30)
    filler.unlink()
    wait_until(lambda: answers(f"{stack.url}/readyz"), "Postgres being back", 60)
    stack.children()
    assert (stack.interrupt(), stack.left_over()) == (0, [])


def test_disk_with_space_is_not_called_full(tmp_path: Path) -> None:
    assert (full_disk(tmp_path), full_disk(tmp_path / "nowhere")) == (None, None)
