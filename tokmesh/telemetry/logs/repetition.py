"""The same line again and again: a few of them get out, the rest become one line with their count.

Lines are the same when logger, level, message template and kind of exception are: what varies stands in the arguments and fields.
In a window of `interval_ms` the first `lines_max` pass; what came beyond is told by one line more, with "repeated", when
the window ends. Audit lines of what was done always pass (`audit.py` bounds those of denied access itself).

Invariants: at most KEYS_MAX templates are remembered, at most TEMPLATE_CHARS_MAX of each; beyond that lines pass unjudged. What
is not told one by one is told by count, also at the end of the process.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

KEYS_MAX: Final = 512
TEMPLATE_CHARS_MAX: Final = 256
LINES_MAX_DEFAULT: Final = 20
INTERVAL_MS_DEFAULT: Final = 10_000

_Key = tuple[str, int, str, str]


class Repetition(logging.Filter):
    """Judges records on any thread. monotonic_ns: a clock that only goes forward. lines_max 0: everything passes."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        super().__init__()
        self.lines_max = LINES_MAX_DEFAULT
        self.interval_ms = INTERVAL_MS_DEFAULT
        self.suppressed = 0
        self._monotonic_ns = monotonic_ns
        self._lock = threading.RLock()  # re-entrant: a signal handler may log while it is held
        self._counts: dict[_Key, int] = {}
        self._window_ends_ns = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line gets out now."""
        if self.lines_max <= 0 or hasattr(record, "audit") or hasattr(record, "repeated"):
            return True
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] is not None else ""
        key = (record.name, record.levelno, str(record.msg)[:TEMPLATE_CHARS_MAX], kind)
        with self._lock:
            now_ns = self._monotonic_ns()
            if not self._counts:
                self._window_ends_ns = now_ns + self.interval_ms * 1_000_000
            count = self._counts.get(key, 0) + 1
            if count == 1 and len(self._counts) >= KEYS_MAX:
                return True
            self._counts[key] = count
            if count <= self.lines_max:
                return True
            self.suppressed += 1
            return False

    def due_in_s(self) -> float | None:
        """Seconds until the window ends; None while nothing is counted."""
        with self._lock:
            if not self._counts:
                return None
            return max(0.0, (self._window_ends_ns - self._monotonic_ns()) / 1e9)

    def take(self, *, at_once: bool = False) -> list[logging.LogRecord]:
        """The lines with counts, when the window has ended or `at_once`; a new window begins with the next line."""
        with self._lock:
            if not self._counts or (not at_once and self._monotonic_ns() < self._window_ends_ns):
                return []
            counts, self._counts = self._counts, {}
        return [_told(key, count - self.lines_max) for key, count in counts.items() if count > self.lines_max > 0]


def _told(key: _Key, count: int) -> logging.LogRecord:
    """The line that stands for `count` others. The template stays as it is: there are no arguments to put in."""
    name, number, template, kind = key
    fields = {"name": name, "levelno": number, "msg": "%s", "args": (template,), "repeated": count}
    return logging.makeLogRecord(fields | ({"kind": kind} if kind else {}))
