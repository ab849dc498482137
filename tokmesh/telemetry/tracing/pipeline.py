"""The parts of tracing, put together: imported only when tracing is on."""

import logging
import os
from collections.abc import Mapping
from typing import Protocol

from tokmesh._core.sampling import Sampler
from tokmesh.ids import RandomSource
from tokmesh.telemetry.tracing import tracer
from tokmesh.telemetry.tracing.exporter import Exporter
from tokmesh.telemetry.tracing.figures import TracingFigures
from tokmesh.telemetry.tracing.otlp import SpanEncoder, rejected_spans
from tokmesh.telemetry.tracing.receiver import Receiver


class Settings(tracer.Settings, Protocol):
    """`telemetry.tracing` of the configuration."""

    @property
    def endpoint(self) -> str: ...
    @property
    def queue_size(self) -> int: ...
    @property
    def export_interval_ms(self) -> int: ...
    @property
    def export_timeout_ms(self) -> int: ...


class Pipeline:
    """headers: of the requests to the receiver. node_id, version: of this server, for the resource of its spans."""

    def __init__(
        self,
        settings: Settings,
        headers: Mapping[str, str],
        sampler: Sampler,
        figures: TracingFigures,
        *,
        node_id: str,
        version: str,
    ) -> None:
        resource = (
            ("service.name", "tokmesh"),
            ("service.version", version),
            ("service.instance.id", node_id),
            ("process.pid", os.getpid()),
        )
        receiver = Receiver(
            settings.endpoint,
            {"User-Agent": f"tokmesh/{version}", **headers},
            settings.export_timeout_ms / 1000,
            rejected_spans,
        )
        self._exporter = Exporter(
            receiver,
            SpanEncoder(resource, version).encode,
            figures,
            queue_spans_max=settings.queue_size,
            interval_s=settings.export_interval_ms / 1000,
            logger=logging.getLogger("tokmesh.traces"),
        )
        self.tracer = tracer.Tracer(sampler, RandomSource().take, self._exporter.offer)
        self.tracer.configure(settings)

    def start(self) -> None:
        """Spans are exported from now on."""
        self._exporter.start()

    def close(self, timeout_s: float) -> None:
        """Exports what is left, within `timeout_s`. Blocks."""
        self._exporter.close(timeout_s)
