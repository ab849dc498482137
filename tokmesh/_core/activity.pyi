from typing_extensions import Buffer

from tokmesh._core.table import Table

ACTIVITY_ITEM_BYTES: int
ACTIVITY_PIECE_BYTES_MAX: int

def collect_activity(table: Table, cursor: int, since_ms: int) -> tuple[bytes, int]: ...
def take_activity(table: Table, data: Buffer) -> int: ...
