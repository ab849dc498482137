from typing_extensions import Buffer

from tokmesh._core.wal import Frame, _Opener

def find_later_header(data: Buffer, offset: int, segment_id: int, sequence_due: int) -> int: ...
def find_frame(
    data: Buffer, offset: int, segment_id: int | None = None, opener: _Opener | None = None
) -> tuple[int, int, Frame] | None: ...
