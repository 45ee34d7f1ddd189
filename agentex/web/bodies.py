"""What a body must be besides valid: not too large, storable by Postgres, and not nested without end."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

from fastapi import Request

from agentex.errors import InvalidInput
from agentex.settings import Settings

# No input seen is deeper than 20; each level costs stack in every parser behind us.
MAX_DEPTH = 100
# Without one of these a body holds nothing that is refused here: an escaped NUL or surrogate, a number
# that is none, an exponent of three digits, UTF-16 (which hides all of them).
_SUSPECT = re.compile(rb"\x00|\\u0000|\\u[dD][89a-fA-F]|NaN|Infinity|[eE]\+?[0-9]{3}")
# A snapshot of a task may be larger than what is written of one at a time.
_SNAPSHOT_PATH = re.compile(r"/tasks/[^/]+/rehydrate")
_CHECKPOINT_PATHS = frozenset({"/checkpoints/put", "/checkpoints/put-writes"})


def body_limit(settings: Settings, path: str) -> int:
    """How many bytes a body may have on this path."""
    if path in _CHECKPOINT_PATHS:
        return settings.max_checkpoint_bytes
    return settings.max_restore_bytes if _SNAPSHOT_PATH.fullmatch(path) else settings.max_body_bytes


async def refuse_unstorable_json(request: Request) -> None:
    """A dependency of every route: raises InvalidInput for NUL, lone surrogates, NaN, Infinity, deep nesting.

    Postgres would refuse the first four only in the middle of a transaction, and without saying where.
    """
    body = await request.body()
    if not _SUSPECT.search(body) and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    try:
        document: Any = json.loads(body)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        # Said better by the route's own parser.
        return
    _check(document, "body", 0)


def _check(value: Any, place: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(place, "is not a finite number; JSON has no NaN and no Infinity (RFC 8259 §6)")
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            _check(item, f"{place}.{index}", depth + 1)
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            _check_text(key, place)
            _check(item, f"{place}.{key}"[:200], depth + 1)


def _check_text(text: str, place: str) -> None:
    if "\x00" in text:
        raise InvalidInput(place, "holds the character NUL (\\u0000), which cannot be stored; leave it out")
    # 24 MB of base64 took 2.6 s otherwise, and all others waited.
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(place, "holds half a surrogate pair (\\ud800 to \\udfff); send both halves")


def _too_deep() -> InvalidInput:
    return InvalidInput("body", f"is nested deeper than {MAX_DEPTH} levels")
