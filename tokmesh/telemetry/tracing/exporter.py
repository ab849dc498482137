"""Takes ended spans and gets them to the receiver, from a thread of its own, without ever keeping anyone waiting.

Invariants: at most `queue_spans_max` spans wait and one batch is under way, whatever the receiver does; a span that finds the
queue full is dropped, so that an outage is remembered from its beginning; every span is counted once, as exported or as
dropped for a reason. A batch is sent again until the receiver takes or refuses it, after the time the receiver asked for or
else after a growing one. At the end what is left is sent once, within the time given, and not to a receiver that is failing.
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tokmesh.telemetry.tracing.figures import TracingFigures
from tokmesh.telemetry.tracing.receiver import Outcome
from tokmesh.telemetry.tracing.span import Span

BATCH_SPANS_MAX: Final = 512
BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 30.0
CUT_S_MAX: Final = 1.0  # of the time at the end, for a POST that was cut to notice


class Posts(Protocol):
    """What of a Receiver is used here."""

    def post(self, content: bytes) -> Outcome: ...
    def cut(self) -> None: ...
    def close(self) -> None: ...


class Exporter:
    """encode: spans → content of a request. interval_s: how long a span may wait for company. jitter: 0 to 1, for backoff."""

    def __init__(
        self,
        receiver: Posts,
        encode: Callable[[Sequence[Span]], bytes],
        figures: TracingFigures,
        *,
        queue_spans_max: int,
        interval_s: float,
        logger: logging.Logger,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._receiver = receiver
        self._encode = encode
        self._figures = figures
        self._queue_spans_max = queue_spans_max
        self._enough_spans = min(BATCH_SPANS_MAX, queue_spans_max)
        self._interval_s = interval_s
        self._logger = logger
        self._jitter = jitter
        self._queue: deque[Span] = deque()
        self._batch: list[Span] = []
        self._enough = threading.Event()
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="tokmesh-traces", daemon=True)

    def start(self) -> None:
        """Starts the thread; offers before it wait in the queue."""
        self._thread.start()

    def offer(self, span: Span) -> None:
        """Takes an ended span or drops it. Never waits."""
        waiting = len(self._queue)
        if waiting >= self._queue_spans_max or self._closing.is_set():
            self._figures.dropped["shutdown" if self._closing.is_set() else "queue_full"] += 1
            return
        self._queue.append(span)
        self._figures.queued = waiting + 1
        if waiting + 1 >= self._enough_spans and not self._enough.is_set():
            self._enough.set()

    def close(self, timeout_s: float) -> None:
        """Sends what is left within `timeout_s`, drops and counts the rest, ends the thread. Blocks: not for the loop."""
        margin_s = min(CUT_S_MAX, timeout_s / 4)
        self._closing.set()
        self._enough.set()
        if self._thread.ident is None:  # the server ended before it served
            self._drop("shutdown", len(self._queue))
            return
        self._thread.join(timeout_s - margin_s)
        if self._thread.is_alive():
            self._receiver.cut()
            self._thread.join(margin_s)
        if self._thread.is_alive():  # in a connect or a look-up of a name, which nothing can end; it goes with the process
            self._drop("shutdown", len(self._batch) + len(self._queue))
        if self._figures.dropped["shutdown"]:
            self._logger.warning("spans were lost at the end", extra={"spans": self._figures.dropped["shutdown"]})

    # ── the thread ──

    def _run(self) -> None:
        backoff_s = BACKOFF_S_MIN
        while True:  # ends with close()
            if not self._batch and not self._gather():
                break
            outcome = self._send()
            if not outcome.may_retry:
                backoff_s = BACKOFF_S_MIN
                continue
            asked_s = outcome.retry_after_s
            wait_s = backoff_s * (0.5 + self._jitter() / 2) if asked_s is None else asked_s
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
            if self._closing.wait(wait_s):
                self._drop("shutdown", len(self._batch) + len(self._queue))
                break
        self._receiver.close()

    def _gather(self) -> bool:
        """Fills the batch, once an interval or when there is enough for one. False: nothing is left and nothing will come."""
        while True:
            self._enough.wait(self._interval_s)
            if self._queue:
                break
            if self._closing.is_set():
                return False
        self._enough.clear()
        if self._closing.is_set():
            self._enough.set()
        self._batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_SPANS_MAX))]
        self._figures.queued = len(self._queue)
        return True

    def _send(self) -> Outcome:
        """One try with the batch; it is empty afterwards unless it may be tried again."""
        figures = self._figures
        try:
            content = self._encode(self._batch)
        except Exception:
            self._logger.exception("spans could not be encoded")
            self._drop("encoding", len(self._batch))
            return Outcome()
        outcome = self._receiver.post(content)
        if outcome.failure:
            figures.failures[outcome.failure] += 1
        self._tell(outcome)
        if outcome.may_retry:
            return outcome
        if outcome.failure == "status":
            self._drop("refused", len(self._batch))
        else:
            rejected = min(outcome.rejected, len(self._batch))
            figures.exported += len(self._batch) - rejected
            self._drop("rejected", rejected)
        return outcome

    def _drop(self, reason: str, count: int) -> None:
        """Counts `count` spans as dropped and forgets the batch; at the end, the queue too."""
        self._figures.dropped[reason] += count
        self._batch = []
        if reason == "shutdown":
            self._queue.clear()
            self._figures.queued = 0

    def _tell(self, outcome: Outcome) -> None:
        """A line when exporting begins to fail and one when it works again; in between the metrics tell."""
        if outcome.failure and not self._failing:
            self._logger.warning("spans cannot be exported", extra={"reason": outcome.failure, "detail": outcome.detail})
        elif not outcome.failure and self._failing:
            self._logger.info("spans are exported again")
        self._failing = bool(outcome.failure)
