"""What nobody caught, in a thread, in the loop or while an object was destroyed, becomes a log line: Python would print it to
standard error as it is, with whatever secret its text holds."""

import asyncio
import logging
import sys
import threading
from types import TracebackType
from typing import Any

logger = logging.getLogger("tokmesh.uncaught")


def log_uncaught() -> None:
    """From now on, for the whole process."""
    threading.excepthook = _of_thread
    sys.unraisablehook = _unraisable


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a callback or a forgotten future raised: a bug of ours, told once and in full."""
    error = context.get("exception")
    logger.error("unexpected: %s", context.get("message", "error"), exc_info=error)


def _of_thread(raised: threading.ExceptHookArgs) -> None:
    name = raised.thread.name if raised.thread is not None else "?"
    if raised.exc_type is not SystemExit:  # a thread's way to end itself, as in Python's own hook
        logger.error("unexpected: a thread ended", exc_info=_info(raised), extra={"thread_name": name})


def _unraisable(raised: "sys.UnraisableHookArgs") -> None:
    logger.error("unexpected: %s", raised.err_msg or "an exception that could not be raised", exc_info=_info(raised))


def _info(
    raised: "threading.ExceptHookArgs | sys.UnraisableHookArgs",
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    return raised.exc_type, raised.exc_value or raised.exc_type(), raised.exc_traceback
