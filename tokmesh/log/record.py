"""Records: what the log holds, one class per kind, and their bytes.

A record says everything that `Store.apply` needs: it carries the wall time of its proposal (`time_ms`, Unix ms), the random
choices and the decision's result, so that applying takes no clock and no randomness. A record never holds a token or an API
secret, only their hashes. `reserved` is True for records that may use the disk space kept back for revocations.

Bytes (little-endian, no padding), format 1. Every record starts with

    kind u8 · format u8 · time_ms i64

and goes on, by kind (text is UTF-8, lengths are bytes):

    1 SessionCreated    session_id 16 · token_hash 32 · expires_at_ms i64 · idle_seconds u32 · lengths of user_id u16,
                        device_id u16, ip_address u8, user_agent u16, created_by u8, data u16 · evicts count u16 ·
                        the six texts in that order ·
                        evicted session ids 16 each
    2 SessionRenewed    session_id 16 · expires_at_ms i64
    3 SessionUpdated    session_id 16 · data, to the end
    4 SessionsRevoked   session ids 16 each, to the end
    5 TokenRotated      session_id 16 · token_hash 32 · old_valid_until_ms i64
    6 SessionsTouched   each, to the end: session_id 16 · last_active_ms i64 · length of ip_address u8 (255: unchanged) · length of
                        user_agent u16 (65535: unchanged) · the two texts
    7 SessionStated     session_id 16 · token_hash 32 · old_token_hash 32 (zeros: none) · old_valid_until_ms i64 (0: none) ·
                        created_at_ms i64 · expires_at_ms i64 · last_active_ms i64 · version u64 · idle_seconds u32 · lengths of
                        user_id u16, device_id u16, ip_address u8, user_agent u16, created_by u8, data u16 · the six texts
    8 SessionHeld       session_id 16 · held_until_ms i64 · a SessionStated of that session and time, whole; or nothing more
    16 KeyCreated       key_id 16 · role u8 · expires_at_ms i64 (0: never) · rate_limit f64 (requests/s, 0: none) · salt 16 ·
                        tag 32 · lengths of description u16, allowedlist u16 (networks joined with a blank), argon2_hash u16 ·
                        the texts
    17 KeyStatusChanged key_id 16 · active u8 (0, 1)
    18 KeyStated        active u8 · a KeyCreated, whole
    32 Streamed         position u64 · previous u64 · envelope, to the end: format u8 (1) · incarnation u64 · number u64 ·
                        lengths of origin u8, request_id u8 · the two texts · a record, whole
    33 StreamBound      cluster_id 16 · created_ns i64 · position u64
    34 NodeStated       incarnation u64 · length of node_id u8 · node_id
    35 ClusterStated    cluster_id 16 · count u8 · of each member, in order: length u8 · node_id
    36 PlaceStated      (nothing more)
    37 ShardsHeld       held u64 · loading u64
    38 ShardLoaded      position u64 · envelope, to the end, as in 32

A kind's bytes never change; a change of meaning is a new kind or a new format number. `decode` accepts exactly what `encode`
makes: any other bytes are a RecordError, never another exception.
"""

import struct
from collections.abc import Callable
from typing import Final

from tokmesh._core.created import SessionCreated
from tokmesh.log.key_record import KEY_DECODERS, KeyCreated, KeyRecord, KeyStatusChanged
from tokmesh.log.record_format import FORMAT, HEAD, Record, RecordError
from tokmesh.log.session_record import (
    SESSION_DECODERS,
    SessionRecord,
    SessionRenewed,
    SessionsRevoked,
    SessionsTouched,
    SessionUpdated,
    TokenRotated,
    Touch,
)
from tokmesh.log.stated_record import STATED_DECODERS, KeyStated, SessionHeld, SessionStated, StatedRecord
from tokmesh.log.stream_record import (
    STREAM_DECODERS,
    ClusterStated,
    NodeStated,
    PlaceStated,
    ShardLoaded,
    ShardsHeld,
    StreamBound,
    Streamed,
    StreamRecord,
    decode_envelope,
)

__all__ = [
    "AnyRecord",
    "ClusterStated",
    "KeyCreated",
    "KeyStated",
    "KeyStatusChanged",
    "NodeStated",
    "PlaceStated",
    "Record",
    "RecordError",
    "SessionCreated",
    "SessionHeld",
    "SessionRenewed",
    "SessionStated",
    "SessionUpdated",
    "SessionsRevoked",
    "SessionsTouched",
    "ShardLoaded",
    "ShardsHeld",
    "StreamBound",
    "Streamed",
    "TokenRotated",
    "Touch",
    "decode",
    "decode_enveloped",
]

AnyRecord = SessionRecord | KeyRecord | StatedRecord | StreamRecord
_DECODERS: Final[dict[int, Callable[[bytes], AnyRecord]]] = {
    **SESSION_DECODERS,
    **KEY_DECODERS,
    **STATED_DECODERS,
    **STREAM_DECODERS,
}


def decode(payload: bytes) -> AnyRecord:
    """The record that `payload` holds, whole. Raises RecordError when the bytes are not exactly one record."""
    try:
        kind, format_number, time_ms = HEAD.unpack_from(payload)
        decoder = _DECODERS.get(kind)
        if decoder is None or format_number != FORMAT or time_ms < 0:
            raise RecordError("unknown kind or format")
        return decoder(payload)
    except (struct.error, UnicodeDecodeError) as error:
        raise RecordError("the bytes do not fit the kind") from error


def decode_enveloped(payload: bytes) -> AnyRecord:
    """The record in an envelope, as a message of the stream is one. Raises RecordError."""
    return decode(decode_envelope(payload).record)
