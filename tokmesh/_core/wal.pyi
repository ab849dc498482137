from enum import IntEnum
from typing import NamedTuple, Protocol

from typing_extensions import Buffer

FORMAT_VERSION: int
SEGMENT_HEADER_BYTES: int
FRAME_HEADER_BYTES: int
RECORD_HEADER_BYTES: int
TAG_BYTES: int

class FrameStatus(IntEnum):
    FRAME_VALID = 0
    FRAME_END = 1
    FRAME_DAMAGED = 2
    FRAME_MISPLACED = 3
    FRAME_FORGED = 4

class SegmentHeader(NamedTuple):
    segment_id: int
    first_sequence: int
    size_bytes: int
    chain: int
    salt: bytes = b""
    key_id: bytes = b""

class Frame(NamedTuple):
    first_sequence: int
    end: int
    chain: int
    records: list[bytes]

class _Opener(Protocol):
    def open(self, counter: int, aad: bytes, sealed: bytes) -> bytes | None: ...

def crc32c(data: Buffer, crc: int = 0) -> int: ...
def encode_segment_header(header: SegmentHeader) -> bytes: ...
def decode_segment_header(data: Buffer) -> SegmentHeader | None: ...
def encode_frame(
    segment_id: int, first_sequence: int, durable_sequence: int, chain: int, records: list[bytes]
) -> tuple[bytes, int]: ...
def read_frame(
    data: Buffer, offset: int, segment_id: int, sequence_due: int, chain: int, opener: _Opener | None = None
) -> tuple[int, Frame | None]: ...
def first_nonzero(data: Buffer, offset: int) -> int: ...
def write_at(fd: int, data: Buffer, offset: int) -> int: ...
