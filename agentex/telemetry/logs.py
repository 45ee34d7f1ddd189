"""Logs: one line an event, a constant message, fields beside it, one `action` key; never a prompt."""

from __future__ import annotations

import logging

import structlog

from agentex.settings import Settings
from agentex.telemetry.faults import safe_exc_info

# Libraries that would log each request, statement or heartbeat at info.
_QUIET = ("aiohttp.access", "sqlalchemy.engine", "uvicorn.access", "alembic", "asyncio")


def _without_color_message(
    logger: logging.Logger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Uvicorn gives each message twice, once in colour."""
    event.pop("color_message", None)
    return event


def _without_reprs(
    logger: logging.Logger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """asyncio writes the task behind its message, with the text of its exception, which comes anyway."""
    if event.get("logger") == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def log_formatter(settings: Settings) -> logging.Formatter:
    """How each line is written."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _without_color_message,
            _without_reprs,
            safe_exc_info,
            renderer,
        ],
    )


def configure_logs(settings: Settings) -> None:
    """Send everything, the standard library's loggers too, to standard error in one format."""
    handler = logging.StreamHandler()
    handler.setFormatter(log_formatter(settings))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
