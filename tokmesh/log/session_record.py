"""The records that sessions are made of. Their bytes are told in record.py."""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from tokmesh._core.created import DATA_BYTES_MAX, IP_ADDRESS_BYTES_MAX, USER_AGENT_BYTES_MAX, SessionCreated, split_texts
from tokmesh.log.record_format import FORMAT, HEAD, ID_BYTES, Record, RecordError, require

_CREATED: Final = struct.Struct("<BBq16s32sqI10xH")  # without the lengths of the texts
_LENGTHS_AT: Final = 70
_RENEWED: Final = struct.Struct("<BBq16sq")
_UPDATED: Final = struct.Struct("<BBq16s")
_ROTATED: Final = struct.Struct("<BBq16s32sq")
_TOUCH: Final = struct.Struct("<16sqBH")
_IP_UNCHANGED: Final = 255
_USER_AGENT_UNCHANGED: Final = 65_535

Touch = tuple[bytes, int, str | None, str | None]


class SessionRenewed(Record):
    """A session's absolute end is moved to `expires_at_ms`."""

    __slots__ = ("expires_at_ms", "session_id")
    KIND = 2

    def __init__(self, time_ms: int, session_id: bytes, expires_at_ms: int) -> None:
        self.time_ms = time_ms
        self.session_id = session_id
        self.expires_at_ms = expires_at_ms

    def encode(self) -> bytes:
        return _RENEWED.pack(2, FORMAT, self.time_ms, self.session_id, self.expires_at_ms)


class SessionUpdated(Record):
    """A session's `data` (compact JSON text, UTF-8) is replaced."""

    __slots__ = ("data", "session_id")
    KIND = 3

    def __init__(self, time_ms: int, session_id: bytes, data: bytes) -> None:
        self.time_ms = time_ms
        self.session_id = session_id
        self.data = data

    def encode(self) -> bytes:
        return _UPDATED.pack(3, FORMAT, self.time_ms, self.session_id) + self.data


class SessionsRevoked(Record):
    """Sessions end, whatever state they are in; the only kind that may use the reserved disk space."""

    __slots__ = ("session_ids",)
    KIND = 4
    reserved = True

    def __init__(self, time_ms: int, session_ids: Sequence[bytes]) -> None:
        self.time_ms = time_ms
        self.session_ids = tuple(session_ids)

    def encode(self) -> bytes:
        return b"".join((HEAD.pack(4, FORMAT, self.time_ms), *self.session_ids))


class TokenRotated(Record):
    """A session's token hash becomes `token_hash`; the one before it stays good until `old_valid_until_ms`."""

    __slots__ = ("old_valid_until_ms", "session_id", "token_hash")
    KIND = 5

    def __init__(self, time_ms: int, session_id: bytes, token_hash: bytes, old_valid_until_ms: int) -> None:
        self.time_ms = time_ms
        self.session_id = session_id
        self.token_hash = token_hash
        self.old_valid_until_ms = old_valid_until_ms

    def encode(self) -> bytes:
        return _ROTATED.pack(5, FORMAT, self.time_ms, self.session_id, self.token_hash, self.old_valid_until_ms)


class SessionsTouched(Record):
    """Soft state in bulk: (session_id, last_active_ms, ip_address or None, user_agent or None); None: unchanged.

    drained: the touches were taken from this process's own table, which has them already. Not part of the bytes.
    """

    __slots__ = ("drained", "touches")
    KIND = 6

    def __init__(self, time_ms: int, touches: Sequence[Touch], *, drained: bool = False) -> None:
        self.time_ms = time_ms
        self.touches = tuple(touches)
        self.drained = drained

    def values(self) -> tuple[object, ...]:
        return (self.time_ms, self.touches)

    def encode(self) -> bytes:
        parts = [HEAD.pack(6, FORMAT, self.time_ms)]
        for session_id, last_active_ms, ip_address, user_agent in self.touches:
            ip = b"" if ip_address is None else ip_address.encode()
            agent = b"" if user_agent is None else user_agent.encode()
            ip_length = _IP_UNCHANGED if ip_address is None else len(ip)
            agent_length = _USER_AGENT_UNCHANGED if user_agent is None else len(agent)
            parts += (_TOUCH.pack(session_id, last_active_ms, ip_length, agent_length), ip, agent)
        return b"".join(parts)


SessionRecord = SessionCreated | SessionRenewed | SessionUpdated | SessionsRevoked | TokenRotated | SessionsTouched


def _split_ids(payload: bytes, start: int) -> tuple[bytes, ...]:
    require((len(payload) - start) % ID_BYTES == 0)
    return tuple(payload[at : at + ID_BYTES] for at in range(start, len(payload), ID_BYTES))


def _decode_created(payload: bytes) -> SessionCreated:
    _, _, time_ms, session_id, token_hash, expires_at_ms, idle_seconds, evicts_count = _CREATED.unpack_from(payload)
    texts = split_texts(payload, _LENGTHS_AT, _CREATED.size)
    if texts is None:
        raise RecordError("a text is outside its bounds")
    user_id, device_id, ip_address, user_agent, created_by, data, evicts_at = texts
    require(len(payload) == evicts_at + ID_BYTES * evicts_count and expires_at_ms >= 0)
    return SessionCreated(
        time_ms, session_id, token_hash, user_id, device_id, ip_address, user_agent, created_by, expires_at_ms, idle_seconds, data,
        _split_ids(payload, evicts_at) if evicts_count else (),
    )  # fmt: skip


def _decode_renewed(payload: bytes) -> SessionRenewed:
    _, _, time_ms, session_id, expires_at_ms = _RENEWED.unpack(payload)
    require(expires_at_ms >= 0)
    return SessionRenewed(time_ms, session_id, expires_at_ms)


def _decode_updated(payload: bytes) -> SessionUpdated:
    _, _, time_ms, session_id = _UPDATED.unpack_from(payload)
    require(len(payload) - _UPDATED.size <= DATA_BYTES_MAX)
    return SessionUpdated(time_ms, session_id, payload[_UPDATED.size :])


def _decode_revoked(payload: bytes) -> SessionsRevoked:
    return SessionsRevoked(HEAD.unpack_from(payload)[2], _split_ids(payload, HEAD.size))


def _decode_rotated(payload: bytes) -> TokenRotated:
    _, _, time_ms, session_id, token_hash, old_valid_until_ms = _ROTATED.unpack(payload)
    require(old_valid_until_ms >= 0)
    return TokenRotated(time_ms, session_id, token_hash, old_valid_until_ms)


def _decode_touched(payload: bytes) -> SessionsTouched:
    touches: list[Touch] = []
    at = HEAD.size
    while at < len(payload):
        session_id, last_active_ms, ip_length, agent_length = _TOUCH.unpack_from(payload, at)
        at += _TOUCH.size
        ip_address = user_agent = None
        if ip_length != _IP_UNCHANGED:
            ip_address = payload[at : at + ip_length].decode()
            at += ip_length
            require(ip_length <= IP_ADDRESS_BYTES_MAX)
        if agent_length != _USER_AGENT_UNCHANGED:
            user_agent = payload[at : at + agent_length].decode()
            at += agent_length
            require(agent_length <= USER_AGENT_BYTES_MAX)
        require(at <= len(payload) and last_active_ms >= 0)
        touches.append((session_id, last_active_ms, ip_address, user_agent))
    return SessionsTouched(HEAD.unpack_from(payload)[2], touches)


SESSION_DECODERS: Final[dict[int, Callable[[bytes], SessionRecord]]] = {
    1: _decode_created,
    2: _decode_renewed,
    3: _decode_updated,
    4: _decode_revoked,
    5: _decode_rotated,
    6: _decode_touched,
}
