from tokmesh._core.counters import CounterBlock
from tokmesh._core.table import Table

class TableBusy(Exception): ...

class TokensElsewhere(Exception):
    hashes: list[bytes]

class Validator:
    table: Table
    counters: CounterBlock
    def __init__(self, table: Table, counters: CounterBlock) -> None: ...
    def validate_one(
        self, token: str, now_ms: int, touch: bool, told: dict[bytes, tuple[int, bytes]] | None = None
    ) -> bytes | None: ...
    def validate_batch(
        self, tokens: list[str], now_ms: int, touch: bool, told: dict[bytes, tuple[int, bytes]] | None = None
    ) -> bytes: ...
