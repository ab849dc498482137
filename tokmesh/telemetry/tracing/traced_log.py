"""The log, with a span for each record that a traced request proposes: from the proposal to the record's application.

Stands in front of the real log while tracing is on, on the loop's thread. `apply` tells which sequence a record got and how
many shared its commit; a record of nobody's trace costs a call.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from tokmesh._core.clock import monotonic_ns
from tokmesh.errors import ApiError
from tokmesh.telemetry.tracing.span import Span

SPAN_NAME = "log commit"
F_co = TypeVar("F_co", bound="asyncio.Future[Any]", covariant=True)


class Proposes(Protocol[F_co]):
    """What the domain sees of a log."""

    def propose(self, record: Any) -> F_co: ...


class CommitLog(Proposes[F_co], Protocol[F_co]):
    """The log in front of which this stands. group_records: how many records that became durable together are being applied."""

    @property
    def group_records(self) -> int: ...


class TracedLog(Generic[F_co]):
    """See the module. apply: the store's. current: the span of who proposes, None when it is not traced."""

    def __init__(
        self,
        log: CommitLog[F_co],
        apply: Callable[[int, Any], object],
        current: Callable[[], Span | None],
        *,
        monotonic_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._current = current
        self._log = log
        self._apply = apply
        self._monotonic_ns = monotonic_ns
        self._commits: dict[int, Span] = {}  # by id() of a record under way, which its proposal keeps alive

    def propose(self, record: Any) -> F_co:
        """As the log's."""
        future = self._log.propose(record)
        span = self._current()
        if span is not None:
            self._commits[id(record)] = span.child(SPAN_NAME, self._monotonic_ns())
            future.add_done_callback(partial(self._finish, record))
        return future

    def apply(self, sequence: int, record: Any) -> object:
        """As the store's."""
        if self._commits:
            span = self._commits.get(id(record))
            if span is not None:
                span.measured = (("tokmesh.log.sequence", sequence), ("tokmesh.log.group_records", self._log.group_records))
        return self._apply(sequence, record)

    def _finish(self, record: Any, future: "asyncio.Future[Any]") -> None:
        span = self._commits.pop(id(record))
        error = None if future.cancelled() else future.exception()
        if error is not None:
            span.error = error.code if isinstance(error, ApiError) else "TM-SYS-5000"
        span.end(self._monotonic_ns())
