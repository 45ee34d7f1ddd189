"""Host names as a test has them: the system's resolver, with answers of the test's own in front of it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import pytest


class Names:
    """`names["agent.example"] = [["127.0.0.2"], ["127.0.0.1"]]`: one answer after another, the last for good.

    `asked` are the names that somebody asked for, in their order.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, list[Sequence[str]]] = {}
        self._system = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def __setitem__(self, host: str, answers: Sequence[Sequence[str]]) -> None:
        self._answers[host] = list(answers)

    def _getaddrinfo(self, host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        answers = self._answers.get(host)
        if answers is None:
            return self._system(host, port, *rest, **named)
        self.asked.append(host)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for address in answer for found in self._system(address, port, type=socket.SOCK_STREAM)]
