"""No text keeps a pattern busy: each of ours answers long hostile text at once.

Such a pattern would take years; the time limit of these tests is a hundred times what they need.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import pytest
import yaml

import agentex
from agentex.app import openapi_yaml

# Longer than anything that a request's head holds.
LENGTH = 100_000
ALPHABETS = [
    *"a0-./:=,[{ä \t\\\x00",
    *("\\u", "\\x", "x-", "0123456789abcdef", "1:1:", "1,", "1:1:1,", "%2e", "%25", "e9", "E+1", "http://"),
    *("a.", "a-", "aA", "00-", "-a", "1-1"),
]
ENDS = ["", "!", "\n", "\x00", "ä", "/", ":"]


def hostile() -> list[str]:
    return [
        start + (part * LENGTH)[:LENGTH] + end
        for start in ("", "x-", "a")
        for part in ALPHABETS
        for end in ENDS
    ]


def of_document() -> list[str]:
    """The patterns that clients are told of."""

    def below(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, each in cast("dict[str, Any]", value).items():
                if key == "pattern" and isinstance(each, str):
                    yield each
                yield from below(each)
        elif isinstance(value, list):
            for each in cast("list[Any]", value):
                yield from below(each)

    return sorted(set(below(yaml.safe_load(openapi_yaml()))))


@cache
def patterns() -> dict[str, re.Pattern[str] | re.Pattern[bytes]]:
    """All compiled patterns of the package's modules, by where they stand."""
    found: dict[str, re.Pattern[str] | re.Pattern[bytes]] = {}
    for module in pkgutil.walk_packages(agentex.__path__, "agentex."):
        if module.name.startswith(("agentex.dev", "agentex.cli.main")):
            continue
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            if isinstance(value, re.Pattern):
                found[f"{module.name}.{name}"] = value
    return found


def test_there_are_patterns() -> None:
    assert {"agentex.web.bodies._SUSPECT", "agentex.acp.headers._TRACEPARENT"} <= set(patterns())
    assert len(patterns()) > 15


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", sorted(patterns()))
def test_a_pattern_answers_hostile_text_at_once(name: str) -> None:
    pattern = patterns()[name]
    for text in hostile():
        given = text.encode() if isinstance(pattern.pattern, bytes) else text
        # Ours are matched whole, but for those below.
        pattern.fullmatch(given)  # pyright: ignore[reportArgumentType, reportCallIssue] - of its own kind
        pattern.match(given)  # pyright: ignore[reportArgumentType, reportCallIssue] - of its own kind


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["agentex.web.bodies._SUSPECT", "agentex.forward_paths._ENCODED_AGAIN"])
def test_what_is_searched_for_is_found_at_once(name: str) -> None:
    pattern = patterns()[name]
    for text in hostile():
        pattern.search(text.encode() if isinstance(pattern.pattern, bytes) else text)  # pyright: ignore[reportArgumentType, reportCallIssue] - of its own kind


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", of_document())
def test_a_pattern_of_the_document_is_harmless_to_whoever_takes_it_over(pattern: str) -> None:
    compiled = re.compile(pattern)
    for text in hostile():
        compiled.match(text)
