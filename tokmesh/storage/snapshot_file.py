"""A snapshot's bytes: what the log had made of table and keys at one sequence.

All integers are little-endian. A file is a header of 128 bytes and chunks back to back, the last of kind END, nothing after it:

     0  magic "TMESHSNP"   8  format version u32   12  flags u32 (1: sealed, 2: made by a restore)
    16  sequence u64: of the last record in it   24  time_ms i64: when it was taken
    32  sessions u64, live or remembered   40  users u64   48  devices u64: how many there are, so that room can be made at once
    56  key id 8   64  salt 16 (zeros unless sealed)   80  zeros   124  CRC-32C of bytes 0..123

A chunk is a header of 24 bytes and its payload:

     0  kind u8 (1 ABOUT, 2 KEYS, 3 SESSIONS, 4 END, 5 CLUSTER)   1  zeros   4  number u32, from 0
     8  raw bytes u32   12  stored bytes u32   16  CRC-32C of the payload as stored   20  chain: CRC-32C of bytes 0..19 continued
        from the chain of the chunk before, of the first from the header's CRC
    24  payload: zstd; of a sealed file then AES-256-GCM, associated data the file header and bytes 0..15 of the chunk's, counter
        its number. ABOUT and END are JSON; KEYS and, of a node of
        a cluster, CLUSTER are records, each with its length, u32 (log/record.py); SESSIONS are images
        (_core/image.pxd)

Invariants: a file that `verify` accepts is whole, its chunks in their order and unchanged; nothing here trusts a byte before.
"""

import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import orjson
import zstandard

from tokmesh._core import wal

if TYPE_CHECKING:
    from tokmesh.storage.encryption import Opener, Sealer

VERSION: Final = 1
HEADER_BYTES: Final = 128
CHUNK_HEADER_BYTES: Final = 24
RAW_BYTES_MAX: Final = 320 << 20  # of a chunk: images that gathered while the disk was slow
LEVEL: Final = 1  # of zstd: a tenth of the bytes at 400 MB/s; level 3 takes twice as long for a twentieth less
MAGIC: Final = b"TMESHSNP"
PURPOSE: Final = b"snapshot"

_HEADER = struct.Struct("<8sIIQqQQQ8s16s44x")
_CHUNK = struct.Struct("<B3xIII")
_CRC = struct.Struct("<I")
_SEALED: Final = 1
_RESTORED: Final = 2


class Kind(IntEnum):
    """What a chunk holds."""

    ABOUT = 1
    KEYS = 2
    SESSIONS = 3
    END = 4
    CLUSTER = 5


class SnapshotDamaged(Exception):
    """A file that is no whole snapshot. `path`, `offset`, `reason`."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path} at offset {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


class SnapshotHeader(NamedTuple):
    """See the module. restored: it begins a history of its own, the records before it do not lead to it."""

    sequence: int
    time_ms: int
    sessions: int = 0
    users: int = 0
    devices: int = 0
    restored: bool = False
    key_id: bytes = b""
    salt: bytes = b""

    @property
    def sealed(self) -> bool:
        """Whether the chunks are encrypted."""
        return self.key_id != b""


class About(NamedTuple):
    """Who made it."""

    node_id: str
    software: str


class Totals(NamedTuple):
    """What is in it: sessions live or remembered (and ended aliases), API keys, and bytes before compression."""

    images: int
    keys: int
    raw_bytes: int


NOTHING: Final = Totals(0, 0, 0)


def encode_header(header: SnapshotHeader) -> bytes:
    """The 128 bytes of a header."""
    flags = (_SEALED if header.sealed else 0) | (_RESTORED if header.restored else 0)
    body = _HEADER.pack(
        MAGIC, VERSION, flags, header.sequence, header.time_ms, header.sessions, header.users, header.devices, header.key_id,
        header.salt,
    )  # fmt: skip
    return body + _CRC.pack(wal.crc32c(body))


def decode_header(path: Path, data: bytes) -> SnapshotHeader:
    """The header at the start of `data`. Raises SnapshotDamaged, also for a version that is not known here."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        raise SnapshotDamaged(path, 0, "not a snapshot")
    body = data[: HEADER_BYTES - 4]
    if _CRC.unpack_from(data, HEADER_BYTES - 4)[0] != wal.crc32c(body):
        raise SnapshotDamaged(path, 0, "its header is damaged")
    _, version, flags, sequence, time_ms, sessions, users, devices, key_id, salt = _HEADER.unpack(body)
    if version != VERSION or flags & ~(_SEALED | _RESTORED) or any(body[80:]):
        raise SnapshotDamaged(path, 0, f"its format, {version}, is newer than this program")
    if not flags & _SEALED:
        key_id = salt = b""
    return SnapshotHeader(sequence, time_ms, sessions, users, devices, bool(flags & _RESTORED), key_id, salt)


class SnapshotWriter:
    """Writes one file, any thread, one at a time. fd: of an empty file, the caller's; sealer: of a sealed file.

    Every method raises OSError, after which the file is worthless."""

    def __init__(self, fd: int, header: SnapshotHeader, about: About, sealer: "Sealer | None" = None) -> None:
        if sealer is not None:
            header = header._replace(key_id=sealer.key_id, salt=sealer.salt)
        self.header = header
        self._fd = fd
        self._sealer = sealer
        self._head = encode_header(header)
        self._chain: int = _CRC.unpack_from(self._head, HEADER_BYTES - 4)[0]
        self._number = 0
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)
        self._keys = self._raw_bytes = 0
        self.bytes_written = 0
        self._write(self._head)
        self._add(Kind.ABOUT, orjson.dumps(about._asdict()))

    def add_keys(self, records: list[bytes]) -> None:
        """The records that make the key ring."""
        self._keys += len(records)
        self._add(Kind.KEYS, _join_records(records))

    def add_cluster(self, records: list[bytes]) -> None:
        """Which stream the node follows, how far, and who belongs to the cluster. OSError."""
        self._add(Kind.CLUSTER, _join_records(records))

    def add_sessions(self, images: bytes) -> None:
        """Whole images, at most RAW_BYTES_MAX bytes."""
        self._add(Kind.SESSIONS, images)

    def finish(self, images: int) -> None:
        """Writes the end and syncs the file. images: how many were added."""
        self._add(Kind.END, orjson.dumps(Totals(images, self._keys, self._raw_bytes)._asdict()))
        os.fsync(self._fd)

    def _add(self, kind: Kind, raw: bytes) -> None:
        stored = self._compressor.compress(raw)
        extra = 0 if self._sealer is None else wal.TAG_BYTES
        head = _CHUNK.pack(kind, self._number, len(raw), len(stored) + extra)
        if self._sealer is not None:
            stored = self._sealer.seal(self._number, self._head + head, stored)
        head += _CRC.pack(wal.crc32c(stored))
        self._chain = wal.crc32c(head, self._chain)
        self._write(head + _CRC.pack(self._chain))
        self._write(stored)
        self._number += 1
        self._raw_bytes += len(raw)

    def _write(self, data: bytes) -> None:
        status = wal.write_at(self._fd, data, self.bytes_written)
        if status != 0:
            raise OSError(status, os.strerror(status))
        self.bytes_written += len(data)


def _join_records(records: list[bytes]) -> bytes:
    return b"".join(len(record).to_bytes(4, "little") + record for record in records)


def split_records(raw: bytes) -> list[bytes]:
    """The records of a KEYS or CLUSTER chunk. What is cut comes out cut, which its decoder tells."""
    records, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        records.append(raw[at + 4 : end])
        at = end
    return records


class _Chunk(NamedTuple):
    kind: Kind
    number: int
    raw_bytes: int
    offset: int  # of the payload
    head: bytes  # bytes 0..15
    stored: bytes


class SnapshotReader:
    """Reads one file. Raises OSError, and SnapshotDamaged from every method."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0  # by the reading under way
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self.size_bytes = os.fstat(self._fd).st_size
            self._head = os.pread(self._fd, HEADER_BYTES, 0)
            self.header = decode_header(path, self._head)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Frees the descriptor."""
        os.close(self._fd)

    def __enter__(self) -> "SnapshotReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verify(self) -> None:
        """Reads all of it: every chunk is there, in its order and unchanged. What sealed payloads say is not looked at."""
        for _ in self._chunks():
            pass

    def contents(self, opener: "Opener | None" = None) -> Iterator[tuple[Kind, bytes]]:
        """Every chunk's kind and content. opener: for a sealed file."""
        assert (opener is not None) == self.header.sealed
        decompressor = zstandard.ZstdDecompressor()
        for chunk in self._chunks():
            stored = chunk.stored
            if opener is not None:
                opened = opener.open(chunk.number, self._head + chunk.head, stored)
                if opened is None:
                    raise SnapshotDamaged(self.path, chunk.offset, "it does not open with the key that it names")
                stored = opened
            try:
                if zstandard.frame_content_size(stored) != chunk.raw_bytes:  # before any memory is taken
                    raise zstandard.ZstdError("another size")
                raw = decompressor.decompress(stored)
            except zstandard.ZstdError as error:
                raise SnapshotDamaged(self.path, chunk.offset, f"chunk {chunk.number} cannot be decompressed") from error
            yield chunk.kind, raw

    def about(self, opener: "Opener | None" = None) -> About:
        """Who made it; reads the first chunk only."""
        kind, raw = next(self.contents(opener))
        if kind != Kind.ABOUT:
            raise SnapshotDamaged(self.path, HEADER_BYTES, "its first chunk does not say who made it")
        said = self._json(raw, HEADER_BYTES)
        return About(str(said.get("node_id", "")), str(said.get("software", "")))

    def totals_of(self, raw: bytes) -> Totals:
        """What an END chunk says."""
        said = self._json(raw, self.size_bytes)
        numbers = [said.get(name) for name in Totals._fields]
        if not all(isinstance(number, int) for number in numbers):
            raise SnapshotDamaged(self.path, self.size_bytes, "its end does not say what is in it")
        return Totals(*cast(list[int], numbers))

    def _json(self, raw: bytes, offset: int) -> dict[str, object]:
        try:
            said = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise SnapshotDamaged(self.path, offset, "a chunk that is not JSON") from error
        if not isinstance(said, dict):
            raise SnapshotDamaged(self.path, offset, "a chunk that is not an object")
        return said

    def _chunks(self) -> Iterator[_Chunk]:
        offset = HEADER_BYTES
        chain: int = _CRC.unpack_from(self._head, HEADER_BYTES - 4)[0]
        number = 0
        while True:  # each turn reads a chunk header; the file is finite
            head = os.pread(self._fd, CHUNK_HEADER_BYTES, offset)
            if len(head) < CHUNK_HEADER_BYTES:
                raise SnapshotDamaged(self.path, offset, "it ends before its end")
            kind, claimed, raw_bytes, stored_bytes = _CHUNK.unpack_from(head)
            chain = wal.crc32c(head[:20], chain)
            known = kind in Kind._value2member_map_ and claimed == number and raw_bytes <= RAW_BYTES_MAX
            if not known or chain != _CRC.unpack_from(head, 20)[0]:
                raise SnapshotDamaged(self.path, offset, f"chunk {number} is damaged or missing")
            offset += CHUNK_HEADER_BYTES
            stored = os.pread(self._fd, stored_bytes, offset) if stored_bytes <= self.size_bytes - offset else b""
            if len(stored) != stored_bytes or wal.crc32c(stored) != _CRC.unpack_from(head, 16)[0]:
                raise SnapshotDamaged(self.path, offset, f"chunk {number} is damaged or cut")
            yield _Chunk(Kind(kind), number, raw_bytes, offset, head[:16], stored)
            offset += stored_bytes
            self.bytes_read = offset
            number += 1
            if kind == Kind.END:
                break
        if offset != self.size_bytes:
            raise SnapshotDamaged(self.path, offset, "something follows its end")
