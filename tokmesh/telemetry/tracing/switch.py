"""Tracing, on or off: what the rest of the server holds of it, the same in both cases. Off, OpenTelemetry is never imported."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tokmesh._core.sampling import Sampler
from tokmesh.telemetry.tracing.figures import TracingFigures

if TYPE_CHECKING:
    from tokmesh.telemetry.tracing import pipeline, traced_asking, traced_log, traced_publishing
    from tokmesh.telemetry.tracing.span import Span
    from tokmesh.telemetry.tracing.tracer import RequestTrace, Tracer

    class Settings(pipeline.Settings, Protocol):
        """`telemetry.tracing` of the configuration."""

        @property
        def enabled(self) -> bool: ...


class Traced(Protocol):
    """A request of the wire path. trace: None unless it is sampled."""

    @property
    def trace(self) -> "RequestTrace | None": ...


class Tracing:
    """headers: of the requests to the receiver. handling: the request whose handler runs at this moment, None outside of any."""

    def __init__(
        self,
        settings: "Settings",
        headers: Mapping[str, str],
        handling: Callable[[], Traced | None],
        *,
        node_id: str,
        version: str,
    ) -> None:
        self.sampler = Sampler(int.from_bytes(os.urandom(8), "little"))
        self.figures = TracingFigures()
        self._handling = handling
        self._pipeline: pipeline.Pipeline | None = None
        if settings.enabled:
            from tokmesh.telemetry.tracing.pipeline import Pipeline

            self._pipeline = Pipeline(settings, headers, self.sampler, self.figures, node_id=node_id, version=version)

    @property
    def tracer(self) -> "Tracer | None":
        """What begins traces; None while tracing is off."""
        return None if self._pipeline is None else self._pipeline.tracer

    def in_front_of(
        self, log: "traced_log.CommitLog[traced_log.F_co]", apply: Callable[[int, Any], object]
    ) -> "tuple[traced_log.Proposes[traced_log.F_co], Callable[[int, Any], object]]":
        """The log to propose to, and what is to apply its records: what was given, or what times it in between."""
        if self._pipeline is None:
            return log, apply
        from tokmesh.telemetry.tracing.traced_log import TracedLog

        traced = TracedLog(log, apply, self.current)
        return traced, traced.apply

    def of_publishing(self, stream: str) -> "traced_publishing.TracedPublishing | None":
        """What makes spans of publications to that stream; None while tracing is off."""
        if self._pipeline is None:
            return None
        from tokmesh.telemetry.tracing.traced_publishing import TracedPublishing

        return TracedPublishing(stream, self.current)

    def of_asking(self) -> "traced_asking.TracedAsking | None":
        """What makes spans of questions to other nodes; None while tracing is off."""
        if self._pipeline is None:
            return None
        from tokmesh.telemetry.tracing.traced_asking import TracedAsking

        return TracedAsking(self.current)

    def current(self) -> "Span | None":
        """The span of what is being done at this moment; None when it is not traced."""
        request = self._handling()
        return None if request is None or request.trace is None else request.trace.current

    def configure(self, settings: "Settings") -> None:
        """Takes over what can change while running."""
        if self._pipeline is not None:
            self._pipeline.tracer.configure(settings)

    def start(self) -> None:
        """Spans are exported from now on."""
        if self._pipeline is not None:
            self._pipeline.start()

    def close(self, timeout_s: float) -> None:
        """Exports what is left, within `timeout_s`. Blocks."""
        if self._pipeline is not None:
            self._pipeline.close(timeout_s)
