from collections.abc import Iterable

LATENCY_BOUNDS_NS: tuple[int, ...]

class HistogramBlock:
    rows: int
    bounds: tuple[int, ...]
    def __init__(self, rows: int, bounds: Iterable[int]) -> None: ...
    def record(self, row: int, value: int) -> None: ...
    def snapshot(self, row: int) -> tuple[list[int], int]: ...
