"""A record as an operator may see it: ids, times and sizes; no secret's hash or verifier, and nothing of a user's.

Invariants: a session's and a key's id is public; token hashes, Argon2id verifiers, salts and tags are never shown in any
form; texts that users or clients chose (user and device ids, addresses, agents, data, descriptions) are shown by their
length in bytes only. What is not named here is not shown: a new kind of record has no summary until it is given one.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from tokmesh.ids import format_key_id, format_session_id, parse_key_id, shards_in
from tokmesh.log.record import (
    AnyRecord,
    ClusterStated,
    KeyCreated,
    KeyStated,
    KeyStatusChanged,
    NodeStated,
    PlaceStated,
    RecordError,
    SessionCreated,
    SessionHeld,
    SessionRenewed,
    SessionsRevoked,
    SessionStated,
    SessionsTouched,
    SessionUpdated,
    ShardLoaded,
    ShardsHeld,
    StreamBound,
    Streamed,
    TokenRotated,
    decode,
)
from tokmesh.log.stream_record import decode_envelope


def summary(record: AnyRecord) -> dict[str, Any]:
    """Kind, time and what else may be shown, ready for JSON."""
    return {"kind": type(record).__name__, "time_ms": record.time_ms, **_SUMMARIES[type(record)](record)}


def _bytes(text: str | None) -> int | None:
    return None if text is None else len(text.encode())


def _creator(text: str) -> dict[str, Any]:
    # Written by the server as a key's id, or nothing for the local administrator; what is neither is not shown.
    shown = not text or parse_key_id(text) is not None
    return {"created_by": text} if shown else {"created_by_bytes": _bytes(text)}


def _session_created(record: SessionCreated) -> dict[str, Any]:
    return {
        "session_id": format_session_id(record.session_id),
        "expires_at_ms": record.expires_at_ms,
        "idle_seconds": record.idle_seconds,
        **_creator(record.created_by),
        "user_id_bytes": _bytes(record.user_id),
        "device_id_bytes": _bytes(record.device_id),
        "ip_address_bytes": _bytes(record.ip_address),
        "user_agent_bytes": _bytes(record.user_agent),
        "data_bytes": len(record.data),
        "evicts": [format_session_id(each) for each in record.evicts],
    }


def _session_renewed(record: SessionRenewed) -> dict[str, Any]:
    return {"session_id": format_session_id(record.session_id), "expires_at_ms": record.expires_at_ms}


def _session_updated(record: SessionUpdated) -> dict[str, Any]:
    return {"session_id": format_session_id(record.session_id), "data_bytes": len(record.data)}


def _sessions_revoked(record: SessionsRevoked) -> dict[str, Any]:
    return {"session_ids": [format_session_id(each) for each in record.session_ids]}


def _token_rotated(record: TokenRotated) -> dict[str, Any]:
    return {"session_id": format_session_id(record.session_id), "old_valid_until_ms": record.old_valid_until_ms}


def _sessions_touched(record: SessionsTouched) -> dict[str, Any]:
    return {
        "touches": [
            {
                "session_id": format_session_id(session_id),
                "last_active_ms": last_active_ms,
                "ip_address_bytes": _bytes(ip_address),
                "user_agent_bytes": _bytes(user_agent),
            }
            for session_id, last_active_ms, ip_address, user_agent in record.touches
        ]
    }


def _key_created(record: KeyCreated) -> dict[str, Any]:
    return {
        "key_id": format_key_id(record.key_id),
        "role": record.role,
        "expires_at_ms": record.expires_at_ms,
        "rate_limit": record.rate_limit,
        "description_bytes": _bytes(record.description),
        "allowedlist_count": len(record.allowedlist),
    }


def _key_status_changed(record: KeyStatusChanged) -> dict[str, Any]:
    return {"key_id": format_key_id(record.key_id), "active": record.active}


def _session_stated(record: SessionStated) -> dict[str, Any]:
    return {
        "session_id": format_session_id(record.session_id),
        "old_valid_until_ms": record.old_valid_until_ms,
        "created_at_ms": record.created_at_ms,
        "expires_at_ms": record.expires_at_ms,
        "last_active_ms": record.last_active_ms,
        "version": record.version,
        "idle_seconds": record.idle_seconds,
        **_creator(record.created_by),
        "user_id_bytes": _bytes(record.user_id),
        "device_id_bytes": _bytes(record.device_id),
        "ip_address_bytes": _bytes(record.ip_address),
        "user_agent_bytes": _bytes(record.user_agent),
        "data_bytes": len(record.data),
    }


def _session_held(record: SessionHeld) -> dict[str, Any]:
    inner = None if record.stated is None else summary(record.stated)
    return {"session_id": format_session_id(record.session_id), "held_until_ms": record.held_until_ms, "record": inner}


def _key_stated(record: KeyStated) -> dict[str, Any]:
    return {**_key_created(record.created), "created_at_ms": record.created.time_ms, "active": record.active}


def _streamed(record: Streamed) -> dict[str, Any]:
    return {"position": record.position, "previous": record.previous, **_enveloped(record.envelope)}


def _enveloped(payload: bytes) -> dict[str, Any]:
    undecodable = {"undecodable_bytes": len(payload)}
    try:
        envelope = decode_envelope(payload)
        inner = decode(envelope.record)
    except RecordError:
        return undecodable
    if isinstance(inner, Streamed | ShardLoaded):  # a stream holds none; what means nothing here is not followed further down
        return undecodable
    origin = {"origin": envelope.origin, "incarnation": envelope.incarnation, "number": envelope.number}
    return {**origin, "record": summary(inner)}


def _stream_bound(record: StreamBound) -> dict[str, Any]:
    return {"cluster_id": record.cluster_id.hex(), "created_ns": record.created_ns, "position": record.position}


def _node_stated(record: NodeStated) -> dict[str, Any]:
    return {"node_id": record.node_id, "incarnation": record.incarnation}


def _cluster_stated(record: ClusterStated) -> dict[str, Any]:
    return {"cluster_id": record.cluster_id.hex(), "members": list(record.members)}


def _place_stated(record: PlaceStated) -> dict[str, Any]:
    return {}


def _shards_held(record: ShardsHeld) -> dict[str, Any]:
    return {"held": shards_in(record.held), "loading": shards_in(record.loading)}


def _shard_loaded(record: ShardLoaded) -> dict[str, Any]:
    return {"position": record.position, **_enveloped(record.envelope)}


_SUMMARIES: Final = cast(
    dict[type[AnyRecord], Callable[[AnyRecord], dict[str, Any]]],
    {
        SessionCreated: _session_created,
        SessionRenewed: _session_renewed,
        SessionUpdated: _session_updated,
        SessionsRevoked: _sessions_revoked,
        TokenRotated: _token_rotated,
        SessionsTouched: _sessions_touched,
        KeyCreated: _key_created,
        KeyStatusChanged: _key_status_changed,
        SessionStated: _session_stated,
        SessionHeld: _session_held,
        KeyStated: _key_stated,
        Streamed: _streamed,
        StreamBound: _stream_bound,
        NodeStated: _node_stated,
        ClusterStated: _cluster_stated,
        PlaceStated: _place_stated,
        ShardsHeld: _shards_held,
        ShardLoaded: _shard_loaded,
    },
)
KINDS: Final = tuple(kind.__name__ for kind in _SUMMARIES)
