"""Where a local HTTP service listens, and what it answers."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """A host and a port."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`http://127.0.0.1:5003`; a server on all addresses is reached at the loopback one."""
        return f"http://{self.reachable_host}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """The host a client on this machine connects to."""
        return "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 (compared only)

    def get(self, path: str) -> Any:
        """The JSON of a GET that was answered with 200, else None."""
        connection = http.client.HTTPConnection(self.reachable_host, self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
