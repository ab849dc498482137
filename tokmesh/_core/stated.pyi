from array import array

from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Table

def begin_stated(
    table: Table, batch: StreamedBatch, start: int, end: int, position: int, held: int, sequence_by_entry: array[int]
) -> int: ...
def entries_after(table: Table, more: int) -> int: ...
