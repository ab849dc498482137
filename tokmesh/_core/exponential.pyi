SCHEMA: int
INDEX_MIN: int
INDEX_MAX: int

def bounds_ns() -> tuple[int, ...]: ...

class ExponentialBlock:
    rows: int
    def __init__(self, rows: int) -> None: ...
    def snapshot(self, row: int) -> tuple[int, list[tuple[int, int]]]: ...
