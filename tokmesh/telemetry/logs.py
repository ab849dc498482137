"""Logs: JSON Lines on standard output (contract §6), one object a line, no secrets, and never in the way of serving.

Invariants:
- One record is one line of valid JSON in UTF-8, whatever its message, exception or extra fields contain.
- Nothing that looks like a token, an API secret or a SHA-256 in hex leaves: every string is redacted before it is
  encoded (after encoding, cutting a match could break an escape), including keys, exception texts and stacks.
- Logging never raises and never waits for the reader of standard output: lines go through a bounded queue to a thread.
  What a closed or stuck pipe cannot take is dropped and counted.

A line:
{"timestamp":"2025-12-18T09:30:00.123Z","level":"INFO","logger":"tokmesh.log","message":"…","request_id":"req-…",…}.
`request_id` and further fields come from `extra=`; an exception adds "error" (type and text) and "stack".
"""

import fcntl
import json
import logging
import math
import os
import re
import select
import threading
import time
import traceback
from collections import deque
from typing import Any, Final

from tokmesh import ids

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")
STRING_CHARS_MAX: Final = 8192  # one string of a line; a stack keeps its end, where the cause is
CUT_CHARS: Final = 256  # longer than any secret
FIELDS_MAX: Final = 64  # items of one object or list
DEPTH_MAX: Final = 4
QUEUE_BYTES_MAX: Final = 4 << 20
STUCK_SECONDS_MAX: Final = 1.0  # how long a non-blocking pipe may be full before its line is dropped
FLUSH_SECONDS_MAX: Final = 2.0

_HASH: Final = re.compile(r"[0-9a-fA-F]{64,}")
# The other characters that some readers take for the end of a line; JSON lets them stand unescaped.
_LINE_ENDS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
_OWN: Final = frozenset(("timestamp", "level", "logger", "message", "error", "stack"))


def redact(text: str) -> str:
    """`text` without anything that looks like a token, an API secret, or a SHA-256 in hex."""
    return _HASH.sub(ids.REDACTED, ids.redact(text))


def level_name(number: int) -> str:
    """DEBUG, INFO, WARN or ERROR for any number that `logging` uses."""
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARN"
    return "INFO" if number >= logging.INFO else "DEBUG"


def level_number(name: str) -> int:
    """The number for debug, info, warn or error in any case; ValueError for another name."""
    if name.upper() not in LEVELS:
        raise ValueError(f"unknown log level: {name!r}; one of debug, info, warn, error")
    return {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}[name.upper()]


def _clean(text: str, keep_end: bool = False) -> str:
    """`text` redacted and cut to STRING_CHARS_MAX, keeping its start or its end.

    A long text is cut with a margin, redacted, and loses the margin: what a cut left of a secret is in it.
    """
    if len(text) <= STRING_CHARS_MAX:
        return redact(text)
    if keep_end:
        return "…" + redact(text[-STRING_CHARS_MAX - CUT_CHARS :])[CUT_CHARS:]
    return redact(text[: STRING_CHARS_MAX + CUT_CHARS])[:-CUT_CHARS] + "…"


def _text(value: object) -> str:
    try:
        return _clean(str(value))
    except Exception:  # a broken __str__ must not take a log line, or its caller, with it
        return f"<unprintable {type(value).__name__}>"


def _plain(value: object, depth: int = 0) -> Any:
    """`value` as something JSON can hold, redacted and bounded."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= 64 else "<big integer>"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth < DEPTH_MAX and isinstance(value, dict):
        return {_text(key): _plain(item, depth + 1) for key, item in list(value.items())[:FIELDS_MAX]}
    if depth < DEPTH_MAX and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth + 1) for item in list(value)[:FIELDS_MAX]]
    return _text(value)


class JsonFormatter(logging.Formatter):
    """Makes the one line of a record, without its newline. Never raises."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the format string
            message = f"{record.msg!s} (arguments do not fit)"
        fields: dict[str, Any] = {
            "timestamp": _timestamp(record.created),
            "level": level_name(record.levelno),
            "logger": _clean(record.name),
            "message": _clean(message),
        }
        for name, value in list(record.__dict__.items()):
            if name not in _STANDARD:
                fields[_clean(name + "_" if name in _OWN else name)] = _plain(value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = _clean(f"{type(error).__name__}: {_text(error)}")
            fields["stack"] = _clean("".join(traceback.format_exception(error, limit=-32)).rstrip(), keep_end=True)
        elif record.stack_info:
            fields["stack"] = _clean(record.stack_info, keep_end=True)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).translate(_LINE_ENDS)


def _timestamp(created: float) -> str:
    milliseconds = int(created * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"


class LogStats:
    """Lines made, by level, and lines dropped. Written under the handler's lock, read by any scrape."""

    def __init__(self) -> None:
        self._lines = dict.fromkeys(LEVELS, 0)
        self.dropped = 0

    def add(self, level: str) -> None:
        self._lines[level] += 1

    def lines(self) -> dict[str, int]:
        """Lines made since the start, by level; every level is there."""
        return dict(self._lines)


def _duplicate(fd: int) -> int:
    """A descriptor of our own for the same file; -1 if `fd` is closed, whose number the next file opened would get."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return -1


class JsonLinesHandler(logging.Handler):
    """Hands lines to a thread that writes them to file descriptor `fd`.

    The queue holds at most QUEUE_BYTES_MAX; lines beyond that, and lines that `fd` does not take, are dropped and
    counted.
    """

    def __init__(self, fd: int, stats: LogStats) -> None:
        super().__init__()
        self.stats = stats
        self.setFormatter(JsonFormatter())
        self._fd = _duplicate(fd)
        self._lines: deque[bytes] = deque()
        self._queued_bytes = 0
        self._writing = False
        self._closing = False
        self._torn = False  # the last write ended inside a line
        self._changed = threading.Condition()  # re-entrant: a signal handler may log while we hold it
        # A daemon: a reader that never reads must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="tokmesh-logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queues the line of `record`. Called under the handler's lock."""
        self.stats.add(level_name(record.levelno))
        try:
            line = self.format(record).encode("utf-8", "replace") + b"\n"
        except Exception:  # a record made to break us; the count above still tells of it
            line = b""
        with self._changed:
            if not line or self._closing or self._queued_bytes + len(line) > QUEUE_BYTES_MAX:
                self.stats.dropped += 1
                return
            self._lines.append(line)
            self._queued_bytes += len(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until the queue is written, at most FLUSH_SECONDS_MAX. Not for the serving loop."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, timeout=FLUSH_SECONDS_MAX)

    def close(self) -> None:
        """Takes no more lines; the thread ends when it has written those it has, or with the process."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._lines) or self._closing)
                if not self._lines:
                    if self._fd >= 0:
                        os.close(self._fd)
                    return
                batch = self._take()
                self._writing = True
            lost = self._write(batch)
            if lost:
                with self._changed:
                    self.stats.dropped += lost

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        batch_bytes = 0
        while self._lines and batch_bytes < 65536:
            batch.append(self._lines.popleft())
            batch_bytes += len(batch[-1])
        self._queued_bytes -= batch_bytes
        return batch

    def _write(self, batch: list[bytes]) -> int:
        """Writes the lines of `batch`; returns how many did not get out whole."""
        start = b"\n" if self._torn else b""
        rest = memoryview(start + b"".join(batch))
        size = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                if not self._wait_writable():
                    break
            except OSError:
                break
        if len(rest) < size:
            self._torn = False
        # Lines are lost from the first that is incomplete; the next batch then starts on a line of its own.
        written, whole = size - len(rest) - len(start), 0
        while whole < len(batch) and written >= len(batch[whole]):
            written -= len(batch[whole])
            whole += 1
        self._torn = self._torn or written > 0
        return len(batch) - whole

    def _wait_writable(self) -> bool:
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        return bool(poller.poll(int(STUCK_SECONDS_MAX * 1000)))


def configure_logging(level: str, *, fd: int = 1) -> LogStats:
    """Sends the root logger's records at `level` (debug, info, warn, error) and above to `fd` as JSON Lines.

    Calling it again only changes the level and returns the same figures. ValueError for an unknown level.
    """
    root = logging.getLogger()
    number = level_number(level)
    for handler in root.handlers:
        if isinstance(handler, JsonLinesHandler):
            root.setLevel(number)
            return handler.stats
    handler = JsonLinesHandler(fd, LogStats())
    root.handlers[:] = [handler]
    root.setLevel(number)
    logging.captureWarnings(True)
    return handler.stats


def set_level(level: str) -> None:
    """Changes what is logged from now on; ValueError for an unknown level."""
    logging.getLogger().setLevel(level_number(level))


def reset_logging() -> None:
    """Takes back what `configure_logging` did: for tests, and for a process that hands its standard output on."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, JsonLinesHandler):
            root.removeHandler(handler)
            handler.flush()
            handler.close()
    logging.captureWarnings(False)
