"""Log lines on their way out: never in the way of serving, never a half line, and every lost one counted.

Logging never raises and never waits for the reader of standard output: lines go through a bounded queue to a thread.
What a closed, full or stuck output cannot take is dropped and counted.
"""

import fcntl
import logging
import os
import select
import threading
from collections import deque
from typing import Final

from tokmesh.telemetry.logs.formatter import JsonFormatter
from tokmesh.telemetry.logs.levels import LEVELS, level_name
from tokmesh.telemetry.logs.repetition import Repetition
from tokmesh.telemetry.logs.scope import ScopeFilter

QUEUE_BYTES_MAX: Final = 4 << 20
STUCK_SECONDS_MAX: Final = 1.0  # how long a non-blocking pipe may be full before its line is dropped
FLUSH_SECONDS_MAX: Final = 2.0


class LogStats:
    """Lines made, by level, lines dropped, and lines told by count only. Written by the handler, read by any scrape."""

    def __init__(self, repetition: Repetition | None = None) -> None:
        self._lines = dict.fromkeys(LEVELS, 0)
        self._repetition = repetition
        self.dropped = 0

    @property
    def suppressed(self) -> int:
        """Lines that repeated others and were told by count."""
        return 0 if self._repetition is None else self._repetition.suppressed

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

    def __init__(self, fd: int, stats: LogStats, repetition: Repetition, scope: ScopeFilter) -> None:
        super().__init__()
        self.stats = stats
        self.repetition = repetition
        self.scope = scope
        self.addFilter(repetition)
        self.addFilter(scope)
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
        """Queues the line of `record`."""
        try:
            line = self.format(record).encode("utf-8", "replace") + b"\n"
        except Exception:  # a record made to break us; the counts below still tell of it
            line = b""
        with self._changed:
            self.stats.add(level_name(record.levelno))
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
        """Tells what repeated itself and takes no more lines; the thread ends when it has written those it has."""
        self._tell_repeated(at_once=True)
        self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        super().close()

    def _tell_repeated(self, *, at_once: bool = False) -> None:
        for record in self.repetition.take(at_once=at_once):
            self.emit(record)  # not `handle`: whoever waits in `flush` may hold the handler's lock

    def _run(self) -> None:
        while True:
            self._tell_repeated()
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._lines) or self._closing, self.repetition.due_in_s())
                if not self._lines:
                    if not self._closing:
                        continue  # a window of the repetition has ended
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


