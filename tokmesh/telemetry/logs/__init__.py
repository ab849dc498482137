"""Logs: JSON Lines on standard output, one object a line, no secrets, and never in the way of serving."""

import logging
from collections.abc import Callable

from tokmesh.telemetry.logs.handler import JsonLinesHandler, LogStats
from tokmesh.telemetry.logs.levels import level_number
from tokmesh.telemetry.logs.repetition import Repetition
from tokmesh.telemetry.logs.scope import ScopeFilter

__all__ = ["JsonLinesHandler", "LogStats", "configure_logging", "reset_logging"]


def configure_logging(level: str, monotonic_ns: Callable[[], int], *, fd: int = 1) -> JsonLinesHandler:
    """Sends the root logger's records at `level` (debug, info, warn, error) and above to `fd` as JSON Lines.

    monotonic_ns: the clock of the windows of repetition. Calling it again only changes the level and returns the same
    handler. ValueError for an unknown level.
    """
    root = logging.getLogger()
    number = level_number(level)
    for handler in root.handlers:
        if isinstance(handler, JsonLinesHandler):
            root.setLevel(number)
            return handler
    repetition = Repetition(monotonic_ns)
    made = JsonLinesHandler(fd, LogStats(repetition), repetition, ScopeFilter())
    root.handlers[:] = [made]
    root.setLevel(number)
    logging.captureWarnings(True)
    return made


def reset_logging() -> None:
    """Takes back what `configure_logging` did: for tests, and for a process that hands its standard output on."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, JsonLinesHandler):
            root.removeHandler(handler)
            handler.flush()
            handler.close()
    logging.captureWarnings(False)
