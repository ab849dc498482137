"""A reader of snapshots written from docs/storage-format.md alone: nothing of the package under test is imported.

Only snapshots that are whole: it raises ValueError at anything else.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import zstandard

from tests.golden.plain_reader import cipher_of, crc32c, read_record

HEADER: Final = struct.Struct("<8sIIQqQQQ8s16s44sI")
CHUNK: Final = struct.Struct("<B3sIIIII")
IMAGE_HEAD: Final = struct.Struct("<IBBBB32sqII")
SESSION_HEAD: Final = struct.Struct("<16sqqQ8H")
OLD_TOKEN: Final = struct.Struct("<32sqI")
TEXTS: Final = (
    "user_id", "device_id", "ip_address", "last_access_ip", "user_agent", "last_access_ua", "created_by", "data",
)  # fmt: skip
SAME: Final = 65535
ABOUT, KEYS, SESSIONS, END = 1, 2, 3, 4


def read_snapshot(path: Path, keys: Sequence[bytes] = ()) -> dict[str, Any]:
    """What the file holds, with the page's names; bytes in hex, images by their token hashes. keys: of an encrypted one."""
    data = path.read_bytes()
    magic, version, flags, sequence, time_ms, sessions, users, devices, key_id, salt, zeros, crc = HEADER.unpack_from(data)
    if (magic, version) != (b"TMESHSNP", 1) or flags > 3 or any(zeros) or crc != crc32c(data[:124]):
        raise ValueError("header")
    if not flags & 1 and any(key_id + salt):
        raise ValueError("a key where nothing is encrypted")
    cipher = cipher_of("snapshot", salt, key_id, keys) if flags & 1 else None
    told: dict[str, Any] = {
        "sequence": sequence, "time_ms": time_ms, "sessions": sessions, "users": users, "devices": devices,
        "encrypted": bool(flags & 1), "restored": bool(flags & 2), "keys": [], "images": [],
    }  # fmt: skip
    offset, number, chain, kind, raw_bytes = 128, 0, crc, 0, 0
    while kind != END:
        head = data[offset : offset + 24]
        kind, zeros, claimed, raw_size, stored_size, payload_crc, told_chain = CHUNK.unpack(head)
        chain = crc32c(head[:20], chain)
        stored = data[offset + 24 : offset + 24 + stored_size]
        if (claimed, zeros, told_chain, payload_crc) != (number, bytes(3), chain, crc32c(stored)) or len(stored) != stored_size:
            raise ValueError(f"chunk {number}")
        if cipher is not None:
            stored = cipher.decrypt(bytes(8) + number.to_bytes(4, "big"), stored, data[:128] + head[:16])
        if zstandard.frame_content_size(stored) != raw_size:
            raise ValueError(f"chunk {number}: size")
        _take(told, number, kind, zstandard.ZstdDecompressor().decompress(stored))
        raw_bytes += raw_size if kind != END else 0
        offset += 24 + stored_size
        number += 1
    if offset != len(data):
        raise ValueError("something follows the end")
    if told.pop("totals") != {"images": len(told["images"]), "keys": len(told["keys"]), "raw_bytes": raw_bytes}:
        raise ValueError("totals")
    told["images"].sort(key=lambda image: str(image["token_hash"]))
    return told


def _take(told: dict[str, Any], number: int, kind: int, raw: bytes) -> None:
    if (number == 0) != (kind == ABOUT):
        raise ValueError("ABOUT is the first and no other")
    if kind == ABOUT:
        told["about"] = json.loads(raw)
    elif kind == END:
        told["totals"] = json.loads(raw)
    elif kind == KEYS and not told["images"]:
        at = 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            told["keys"].append(read_record(raw[at + 4 : at + 4 + size]))
            at += 4 + size
    elif kind == SESSIONS:
        at = 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            told["images"].append(_image(raw[at : at + size]))
            at += size
    else:
        raise ValueError(f"chunk {number}: kind")


def _image(data: bytes) -> dict[str, Any]:
    size, kind, state, has_old, zero, token_hash, expires_at_ms, forgotten_at_s, idle_seconds = IMAGE_HEAD.unpack_from(data)
    if size != len(data) or zero or kind not in (1, 2) or has_old > 1:
        raise ValueError("image")
    told = {"token_hash": token_hash.hex(), "state": state, "expires_at_ms": expires_at_ms}
    if kind == 2:
        if (size, state, has_old) != (56, 5, 0):
            raise ValueError("ended token")
        return {**told, "forgotten_at_s": forgotten_at_s}
    session_id, created_at_ms, last_active_ms, version, *sizes = SESSION_HEAD.unpack_from(data, 56)
    told |= {
        "session_id": session_id.hex(), "created_at_ms": created_at_ms, "last_active_ms": last_active_ms, "version": version,
        "idle_seconds": idle_seconds,
    }  # fmt: skip
    if state == 3:
        told["forgotten_at_s"] = forgotten_at_s
    at = 112
    if has_old:
        old_hash, good_until_ms, old_forgotten_at_s = OLD_TOKEN.unpack_from(data, at)
        told["old_token"] = {
            "token_hash": old_hash.hex(), "good_until_ms": good_until_ms, "forgotten_at_s": old_forgotten_at_s,
        }  # fmt: skip
        at += 44
    texts: dict[str, str] = {}
    for name, length in zip(TEXTS, sizes, strict=True):
        if length == SAME and name in ("last_access_ip", "last_access_ua"):
            texts[name] = texts["ip_address" if name == "last_access_ip" else "user_agent"]
            continue
        text = data[at : at + length].decode()
        texts[name] = text if name == "data" else json.loads(f'"{text}"')
        at += length
    if at != size:
        raise ValueError("texts")
    return told | texts
