"""An exception as a log may have it: where it arose and of what type, not what was in the values.

An exception's text quotes what it was about: a row that a constraint refuses (Postgres's DETAIL), the input
that no validator took, the key that no dictionary had. Those are prompts, keys and tokens of somebody.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, cast

import structlog

# Of these the text is made of code, types and the system's own words.
_PLAIN = (AttributeError, TypeError, NameError, ImportError, RecursionError, MemoryError, NotImplementedError)
# Frames of each exception, the innermost ones.
MAX_FRAMES = 30
# Exceptions that one followed from.
MAX_CHAIN = 8


def safe_exc_info(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A processor in place of structlog's format_exc_info."""
    given: Any = event.pop("exc_info", None)
    error: object = cast("tuple[object, ...]", given)[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["exception"] = describe(error)
    return event


def describe(error: BaseException) -> str:
    """The exception and what it followed from, the first cause first, as Python orders them."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain and len(chain) < MAX_CHAIN:
        chain.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    # The word by which whoever reads a log looks for one.
    return "Traceback, without values:\n" + "\n\nand then\n\n".join(_one(each) for each in reversed(chain))


def _one(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    lines = [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
    lines += [named(error)]
    if isinstance(error, BaseExceptionGroup):
        several = cast("BaseExceptionGroup[BaseException]", error)
        lines += [named(each) for each in several.exceptions[:MAX_CHAIN]]
    return "\n".join(lines)


def named(error: BaseException) -> str:
    """Its type, and what of it is made of no values."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, _PLAIN):
        return f"{name}: {error}"
    known = {
        "sqlstate": getattr(error, "sqlstate", None),
        "constraint": getattr(error, "constraint_name", None),
        "errno": error.errno if isinstance(error, OSError) else None,
    }
    return " ".join(
        [name, *(f"{key}={value}" for key, value in known.items() if isinstance(value, str | int))]
    )


def _short(filename: str) -> str:
    """From the package on: where it is installed is nobody's business."""
    parts = Path(filename).parts
    for marker in ("site-packages", "agentex"):
        if marker in parts:
            at = len(parts) - 1 - parts[::-1].index(marker)
            return "/".join(parts[at + (marker == "site-packages") :])
    return "/".join(parts[-2:])
