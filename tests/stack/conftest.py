"""What the tests of the dev stack share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.stack.dev_stack import DevStack
from tests.support.postgres import open_folder


@pytest.fixture
def make_stack() -> Iterator[Callable[..., DevStack]]:
    """Makes stacks, by default each on a folder of its own, and ends them."""
    made: list[tuple[DevStack, Path]] = []

    def make(
        *options: str,
        data_directory: Path | None = None,
        program: Sequence[str] | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> DevStack:
        directory = open_folder()
        place = data_directory or directory / ".agentex"
        log = directory / "terminal.log"
        stack = DevStack(place, log, options=options, program=program, environment=environment)
        made.append((stack, directory))
        return stack

    yield make
    for stack, directory in made:
        stack.supervisor.close()
        shutil.rmtree(directory)
