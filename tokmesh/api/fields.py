"""The fields of a session as clients name them, choosing some of them, and identifiers in paths and bodies."""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from tokmesh.errors import ApiError
from tokmesh.ids import parse_key_id, parse_session_id

# In the order of the session's JSON.
SESSION_FIELDS: Final = (
    "id",
    "user_id",
    "device_id",
    "ip_address",
    "user_agent",
    "last_access_ip",
    "last_access_ua",
    "created_by",
    "created_at",
    "expires_at",
    "last_active",
    "data",
    "version",
)


def checked_fields(names: Iterable[str]) -> tuple[str, ...]:
    """The named session fields, once each, in the session's order. Raises TM-ARG-1001 for a name that is none."""
    wanted = set(names)
    chosen = tuple(name for name in SESSION_FIELDS if name in wanted)
    if len(chosen) != len(wanted) or not chosen:
        raise ApiError("TM-ARG-1001", {"field": "fields", "allowed": list(SESSION_FIELDS)})
    return chosen


def project(session_json: bytes, chosen: tuple[str, ...] | None) -> orjson.Fragment | dict[str, Any]:
    """A session's JSON for the envelope, whole (None) or reduced to the chosen fields."""
    if chosen is None:
        return orjson.Fragment(session_json)
    session = orjson.loads(session_json)
    return {name: session[name] for name in chosen}


def session_id_of(text: str, field: str = "session_id") -> bytes:
    """`tmss-…` in any case → 16 bytes. Raises TM-ARG-1001 when malformed."""
    session_id = parse_session_id(text)
    if session_id is None:
        raise ApiError("TM-ARG-1001", {"field": field, "expected": "tmss- and 26 characters"})
    return session_id


def key_id_of(text: str, field: str = "key_id") -> bytes:
    """`tmak-…` in any case → 16 bytes. Raises TM-ARG-1001 when malformed."""
    key_id = parse_key_id(text)
    if key_id is None:
        raise ApiError("TM-ARG-1001", {"field": field, "expected": "tmak- and 26 characters"})
    return key_id
