"""Logging of runstate and of other libraries: lines on standard error, as text or JSON."""

import logging
import sys
from typing import Any, Final

import structlog

COMMON: Final[tuple[Any, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
"""Processors of every line; they add the request id, the level and the time."""


def configure(level: str, form: str) -> None:
    """Configure logging from a level on, as `text` or `json`; `auto` is text if standard error is a terminal."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    written = rendering(as_text=form == "text" or (form == "auto" and sys.stderr.isatty()))
    of_others = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *COMMON],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *written],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(of_others)
    # Handlers of libraries are replaced, so that their lines have the same format.
    logging.basicConfig(level=threshold, handlers=[handler], force=True)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        processors=[*COMMON, *written],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def rendering(*, as_text: bool) -> list[Any]:
    """Return the processors that write a line.

    Tracebacks are plain: by default structlog prints them with `rich` and the local variables of each frame, which
    contain values of clients and block the event loop for a second.
    """
    if as_text:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    # A line must not fail because of a value that JSON does not have.
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
