from collections.abc import Iterable

from tokmesh._core.counters import CounterBlock
from tokmesh._core.histogram import HistogramBlock
from tokmesh._core.router import _Routed

METHODS: tuple[str, ...]
STATUSES: tuple[int, ...]
STATUS_CLASSES: tuple[str, ...]
UNMATCHED_TEMPLATE: str

class Meter:
    templates: tuple[str, ...]
    counts: CounterBlock
    latency: HistogramBlock
    def __init__(self, routes: Iterable[_Routed], templates: Iterable[str]) -> None: ...
    def series(self) -> list[tuple[str, str, str, int]]: ...
    def durations(self) -> list[tuple[str, str, str, int]]: ...
    def note_exemplar(self, method: int, template: int, status: int, elapsed_ns: int, trace_id: str, at_ms: int) -> int: ...
