"""A reader of the log written from docs/storage-format.md alone: nothing of the package under test is imported.

It shows that the page is enough to write one in another language, and says in the page's words what the golden logs hold.
Only logs that are whole or have a torn tail: it raises ValueError at anything else.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEGMENT_HEADER: Final = struct.Struct("<8sIIQQQI16sI")
FRAME_HEADER: Final = struct.Struct("<4sBBHQQQIIIIII")
RECORD_HEAD: Final = struct.Struct("<BBq")
ROLES: Final = {1: "metrics", 2: "validator", 4: "issuer", 8: "admin"}


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE: Final = _table()


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C (Castagnoli), continued from `crc`."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def read_log(directory: Path, keys: Sequence[bytes] = ()) -> dict[str, Any]:
    """Segments, frames and records of a log, and its torn tail: {"file", "offset"} or None. keys: of encrypted segments."""
    sequence_due, chain = 1, 0
    segments: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    torn_tail: dict[str, Any] | None = None
    for path in sorted(directory.glob("wal-*.log")):
        if torn_tail is not None:
            raise ValueError(f"{torn_tail}: damage, since another segment follows")
        data = path.read_bytes()
        magic, version, flags, segment_id, first_sequence, size_bytes, chain_before, key, crc = SEGMENT_HEADER.unpack_from(data)
        if (magic, version) != (b"TMESHLOG", 1) or flags > 1 or (not flags and any(key)) or crc != crc32c(data[:60]):
            raise ValueError(f"{path.name}: header")
        if (first_sequence, chain_before, path.name) != (sequence_due, chain, f"wal-{first_sequence:020}.log"):
            raise ValueError(f"{path.name}: does not follow")
        cipher = cipher_of("log segment", data[16:24] + key[:8], key[8:], keys) if flags else None
        offset, frames = 64, []
        while offset < len(data) and data[offset:].strip(b"\0"):
            frame = _read_frame(data, offset, segment_id, sequence_due, chain, cipher)
            if frame is None:
                torn_tail = {"file": path.name, "offset": offset}
                break
            for payload in frame.pop("payloads"):
                records.append({"sequence": sequence_due, **read_record(payload)})
                sequence_due += 1
            frames.append(frame)
            offset, chain = frame["end"], frame["chain"]
        segments.append({"file": path.name, "segment_id": segment_id, "size_bytes": size_bytes, "frames": frames})
    return {"segments": segments, "records": records, "torn_tail": torn_tail}


def cipher_of(kind: str, salt: bytes, key_id: bytes, keys: Sequence[bytes]) -> AESGCM:
    """Of a file of that kind. KeyError when none of the keys has that id."""
    by_id = {HKDF(SHA256(), 8, None, b"tokmesh key id").derive(key): key for key in keys}
    return AESGCM(HKDF(SHA256(), 32, salt, b"tokmesh file: " + kind.encode()).derive(by_id[key_id]))


def _read_frame(
    data: bytes, offset: int, segment_id: int, sequence_due: int, chain: int, cipher: AESGCM | None
) -> dict[str, Any] | None:
    """None: not whole. ValueError: whole, and not the one that is due."""
    if len(data) - offset < FRAME_HEADER.size:
        return None
    magic, version, flags, zero16, frame_segment, first, durable, count, payload_bytes, payload_crc, frame_chain, counter, crc = (
        FRAME_HEADER.unpack_from(data, offset)
    )
    payload = data[offset + 56 : offset + 56 + payload_bytes]
    if magic != b"TMFR" or crc != crc32c(data[offset : offset + 52]):
        return None
    if len(payload) < payload_bytes or crc32c(payload) != payload_crc:
        return None
    if (version, flags, zero16, frame_segment, first) != (1, int(cipher is not None), 0, segment_id, sequence_due):
        raise ValueError(f"offset {offset}: not the frame due")
    if frame_chain != crc32c(data[offset : offset + 44], chain):
        raise ValueError(f"offset {offset}: chain")
    if cipher is not None:
        aad = data[offset : offset + 40] + chain.to_bytes(4, "little")
        payload = cipher.decrypt(bytes(8) + counter.to_bytes(4, "big"), payload, aad)
    elif counter != 0:
        raise ValueError(f"offset {offset}: a counter where nothing is encrypted")
    payloads, at = [], 0
    while at < len(payload):
        (size,) = struct.unpack_from("<I", payload, at)
        payloads.append(payload[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(payload) or len(payloads) != count:
        raise ValueError(f"offset {offset}: record lengths")
    end = offset + 56 + payload_bytes
    return {
        "offset": offset, "end": end, "first_sequence": first, "durable_sequence": durable, "record_count": count,
        "chain": frame_chain, "payloads": payloads,
    }  # fmt: skip


def read_record(data: bytes) -> dict[str, Any]:
    """A record with the page's names; bytes in hex."""
    kind, record_format, time_ms = RECORD_HEAD.unpack_from(data)
    if record_format != 1:
        raise ValueError("format")
    name, read = _KINDS[kind]
    fields = _Fields(data[RECORD_HEAD.size :])
    told = {"kind": name, "time_ms": time_ms, **read(fields)}
    if fields.left:
        raise ValueError(f"{name}: {fields.left} bytes too many")
    return told


class _Fields:
    """The bytes after a record's head, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise ValueError("too short")
        self._at += size
        return self._data[self._at - size : self._at]

    def hex(self, size: int) -> str:
        return self.take(size).hex()

    def number(self, form: str) -> Any:
        (value,) = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))
        return value

    def text(self, size: int) -> str:
        return self.take(size).decode()

    def ids(self) -> list[str]:
        return [self.hex(16) for _ in range(self.left // 16)]


def _session_created(f: _Fields) -> dict[str, Any]:
    told = {
        "session_id": f.hex(16), "token_hash": f.hex(32), "expires_at_ms": f.number("q"), "idle_seconds": f.number("I"),
    }  # fmt: skip
    names = ("user_id", "device_id", "ip_address", "user_agent", "created_by", "data")
    sizes = [f.number(form) for form in "HHBHBH"]
    evicts_count = f.number("H")
    texts = {name: f.text(size) for name, size in zip(names, sizes, strict=True)}
    return {**told, **texts, "evicts": [f.hex(16) for _ in range(evicts_count)]}


def _sessions_touched(f: _Fields) -> dict[str, Any]:
    touches = []
    while f.left:
        session_id, last_active_ms, ip_bytes, agent_bytes = f.hex(16), f.number("q"), f.number("B"), f.number("H")
        ip_address = None if ip_bytes == 255 else f.text(ip_bytes)
        user_agent = None if agent_bytes == 65535 else f.text(agent_bytes)
        touches.append([session_id, last_active_ms, ip_address, user_agent])
    return {"touches": touches}


def _key_created(f: _Fields) -> dict[str, Any]:
    told = {
        "key_id": f.hex(16), "role": ROLES[f.number("B")], "expires_at_ms": f.number("q"), "rate_limit": f.number("d"),
        "salt": f.hex(16), "tag": f.hex(32),
    }  # fmt: skip
    sizes = [f.number("H") for _ in range(3)]
    return {**told, **{name: f.text(size) for name, size in zip(("description", "allowedlist", "argon2_hash"), sizes, strict=True)}}


_KINDS: Final[dict[int, tuple[str, Any]]] = {
    1: ("SessionCreated", _session_created),
    2: ("SessionRenewed", lambda f: {"session_id": f.hex(16), "expires_at_ms": f.number("q")}),
    3: ("SessionUpdated", lambda f: {"session_id": f.hex(16), "data": f.text(f.left)}),
    4: ("SessionsRevoked", lambda f: {"session_ids": f.ids()}),
    5: ("TokenRotated", lambda f: {"session_id": f.hex(16), "token_hash": f.hex(32), "old_valid_until_ms": f.number("q")}),
    6: ("SessionsTouched", _sessions_touched),
    16: ("KeyCreated", _key_created),
    17: ("KeyStatusChanged", lambda f: {"key_id": f.hex(16), "active": bool(f.number("B"))}),
}
