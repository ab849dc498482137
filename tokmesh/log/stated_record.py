"""Records that say all of a thing, not a change of it: what the stream of a cluster keeps of a session and of an API key.

The stream keeps only the last record of each subject, so that it follows what lives; a node that starts with the stream alone must
be able to make its table from what is there. A stated record says the outcome of every change so far. Their bytes are told in
record.py.
"""

import struct
from collections.abc import Callable
from typing import Final, cast

from tokmesh._core.created import split_texts
from tokmesh.log.key_record import KEY_DECODERS, KeyCreated
from tokmesh.log.record_format import FORMAT, HEAD, Record, RecordError, require

_HASH_BYTES: Final = 32
_STATED: Final = struct.Struct("<BBq16s32s32sqqqqQIHHBHBH")
_LENGTHS_AT: Final = 134  # of the texts
_KEY_STATED: Final = struct.Struct("<BBqB")
_HELD: Final = struct.Struct("<BBq16sq")


class SessionStated(Record):
    """A session as it is. old_token_hash, old_valid_until_ms: of a token rotated away and in its grace; b"" and 0 without one.
    time_ms is of the change that made it so. Address and agent are of the session's creation."""

    __slots__ = (
        "created_at_ms",
        "created_by",
        "data",
        "device_id",
        "expires_at_ms",
        "idle_seconds",
        "ip_address",
        "last_active_ms",
        "old_token_hash",
        "old_valid_until_ms",
        "session_id",
        "token_hash",
        "user_agent",
        "user_id",
        "version",
    )  # fmt: skip
    KIND = 7

    def __init__(
        self,
        time_ms: int,
        session_id: bytes,
        token_hash: bytes,
        old_token_hash: bytes,
        old_valid_until_ms: int,
        created_at_ms: int,
        expires_at_ms: int,
        last_active_ms: int,
        version: int,
        idle_seconds: int,
        user_id: str,
        device_id: str,
        ip_address: str,
        user_agent: str,
        created_by: str,
        data: bytes,
    ) -> None:
        self.time_ms = time_ms
        self.session_id = session_id
        self.token_hash = token_hash
        self.old_token_hash = old_token_hash
        self.old_valid_until_ms = old_valid_until_ms
        self.created_at_ms = created_at_ms
        self.expires_at_ms = expires_at_ms
        self.last_active_ms = last_active_ms
        self.version = version
        self.idle_seconds = idle_seconds
        self.user_id = user_id
        self.device_id = device_id
        self.ip_address = ip_address
        self.user_agent = user_agent
        self.created_by = created_by
        self.data = data

    def encode(self) -> bytes:
        texts = [
            text.encode() for text in (self.user_id, self.device_id, self.ip_address, self.user_agent, self.created_by)
        ]
        head = _STATED.pack(
            7, FORMAT, self.time_ms, self.session_id, self.token_hash, self.old_token_hash or bytes(_HASH_BYTES),
            self.old_valid_until_ms, self.created_at_ms, self.expires_at_ms, self.last_active_ms, self.version, self.idle_seconds,
            *map(len, texts), len(self.data),
        )  # fmt: skip
        return b"".join((head, *texts, self.data))


class SessionHeld(Record):
    """A session whose life was made shorter: a node may know it as good until `held_until_ms`, the latest end ever stated of it.
    stated: the session as it is, with its earlier end; None in a snapshot, whose table has it."""

    __slots__ = ("held_until_ms", "session_id", "stated")
    KIND = 8

    def __init__(self, time_ms: int, session_id: bytes, held_until_ms: int, stated: SessionStated | None) -> None:
        self.time_ms = time_ms
        self.session_id = session_id
        self.held_until_ms = held_until_ms
        self.stated = stated

    def encode(self) -> bytes:
        head = _HELD.pack(8, FORMAT, self.time_ms, self.session_id, self.held_until_ms)
        return head if self.stated is None else head + self.stated.encode()


class KeyStated(Record):
    """An API key as it is: `created`, and whether it is enabled. time_ms is of the change that made it so."""

    __slots__ = ("active", "created")
    KIND = 18

    def __init__(self, time_ms: int, active: bool, created: KeyCreated) -> None:
        self.time_ms = time_ms
        self.active = active
        self.created = created

    def encode(self) -> bytes:
        return _KEY_STATED.pack(18, FORMAT, self.time_ms, self.active) + self.created.encode()


StatedRecord = SessionStated | SessionHeld | KeyStated


def _decode_session(payload: bytes) -> SessionStated:
    (
        _, _, time_ms, session_id, token_hash, old_token_hash, old_valid_until_ms, created_at_ms, expires_at_ms, last_active_ms,
        version, idle_seconds,
    ) = _STATED.unpack_from(payload)[:12]  # fmt: skip
    texts = split_texts(payload, _LENGTHS_AT, _STATED.size)
    if texts is None:
        raise RecordError("a text is outside its bounds")
    user_id, device_id, ip_address, user_agent, created_by, data, end = texts
    rotated = old_valid_until_ms > 0
    require(
        len(payload) == end
        and min(created_at_ms, expires_at_ms, last_active_ms, old_valid_until_ms) >= 0
        and version >= 1
        and rotated == (old_token_hash != bytes(_HASH_BYTES))
    )
    return SessionStated(
        time_ms, session_id, token_hash, old_token_hash if rotated else b"", old_valid_until_ms, created_at_ms, expires_at_ms,
        last_active_ms, version, idle_seconds, user_id, device_id, ip_address, user_agent, created_by, data,
    )  # fmt: skip


def _decode_held(payload: bytes) -> SessionHeld:
    _, _, time_ms, session_id, held_until_ms = _HELD.unpack_from(payload)
    require(held_until_ms > 0)
    inner = payload[_HELD.size :]
    if not inner:
        return SessionHeld(time_ms, session_id, held_until_ms, None)
    kind, format_number, _ = HEAD.unpack_from(inner)
    require(kind == SessionStated.KIND and format_number == FORMAT)
    stated = _decode_session(inner)
    require(stated.session_id == session_id and stated.time_ms == time_ms and stated.expires_at_ms < held_until_ms)
    return SessionHeld(time_ms, session_id, held_until_ms, stated)


def _decode_key(payload: bytes) -> KeyStated:
    _, _, time_ms, active = _KEY_STATED.unpack_from(payload)
    inner = payload[_KEY_STATED.size :]
    kind, format_number, created_at_ms = HEAD.unpack_from(inner)
    require(active <= 1 and kind == KeyCreated.KIND and format_number == FORMAT and created_at_ms >= 0)
    return KeyStated(time_ms, active == 1, cast(KeyCreated, KEY_DECODERS[kind](inner)))


STATED_DECODERS: Final[dict[int, Callable[[bytes], StatedRecord]]] = {
    7: _decode_session,
    8: _decode_held,
    18: _decode_key,
}
