from typing_extensions import Buffer

from tokmesh._core.table import Table

class Loader:
    count: int
    def __init__(self, table: Table, *, time_ms: int, sessions: int = 0, users: int = 0, devices: int = 0) -> None: ...
    def load(self, data: Buffer) -> None: ...
