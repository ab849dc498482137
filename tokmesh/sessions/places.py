"""Places in a user's quota: which sessions hold one, and which must end for one more to begin.

A session holds a place while it is live or about to begin; one that a proposal in flight evicts does not. In a cluster whose nodes
hold only a part of the sessions, whoever holds the others counts those, and tells `Places`: what was proposed meanwhile is not in
it, so that creates for one user at once on several nodes may pass the quota.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tokmesh._core.table import Status, Table
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, shard_of
from tokmesh.sessions.reservations import Reservations

# A create makes room for itself; where a quota was lowered, sessions above it go in steps of this many.
EVICTS_MAX: Final = 1000

_LIVE: Final = int(Status.LIVE)

Key = tuple[int, bytes]  # creation time, Unix ms; session id


class Places(NamedTuple):
    """What one user's sessions of some shards hold. total: all of them; oldest: the first EVICTS_MAX of them."""

    total: int
    oldest: Sequence[Key]


class PlacesElsewhere(NamedTuple):
    """What sessions that are not to be counted here hold; here: the shards (bits) of those that are."""

    places: Places
    here: int


class PlaceCount:
    """Of the sessions in `table` and those that `reservations` tell of."""

    def __init__(self, table: Table, reservations: Reservations) -> None:
        self._table = table
        self._reservations = reservations
        self._quota = 1
        self._evicts_oldest = False

    def configure(self, quota: int, policy: str) -> None:
        """policy: "reject" or "evict_oldest"."""
        self._quota = quota
        self._evicts_oldest = policy == "evict_oldest"

    def held(self, user_id: str, now_ms: int, shards: int = ALL_SHARDS) -> Places:
        """By the user's sessions of those shards (bits)."""
        keys = self._keys(user_id, self._table.user_entries(user_id), now_ms, shards)
        return Places(len(keys), keys[:EVICTS_MAX])

    def make(self, user_id: str, now_ms: int, elsewhere: PlacesElsewhere | None) -> tuple[tuple[bytes, ...], int]:
        """The sessions that must end for one more of the user's to begin, and how many of them give their places, others having
        given theirs; raises TM-SESS-4002 where none is to, TM-SYS-5030 where too many begin at once. elsewhere: None where all
        sessions are in this table."""
        entries = self._table.user_entries(user_id)
        # An upper bound first: sessions listed may have ended, those in flight may be listed already.
        most = len(entries) + len(self._reservations.creating(user_id))
        if elsewhere is not None:
            most += elsewhere.places.total
        if most < self._quota:
            return (), 0
        keys = self._keys(user_id, entries, now_ms, ALL_SHARDS if elsewhere is None else elsewhere.here)
        count = len(keys)
        if elsewhere is not None:
            total, oldest = elsewhere.places
            going = self._reservations.evicting(user_id)
            others = [key for key in oldest if key[1] not in going]
            count += total - len(oldest) + len(others)
            keys = sorted(keys + others)
        excess = count - self._quota + 1
        if excess <= 0:
            return (), 0
        if not self._evicts_oldest:
            raise ApiError("TM-SESS-4002", {"limit": self._quota})
        chosen = [session_id for _, session_id in keys[: min(excess, EVICTS_MAX)]]
        # One that is in flight may be refused, and would not end what was to make room for it.
        again = self._reservations.room_for(user_id, chosen)
        if len(again) + len(chosen) > EVICTS_MAX:
            raise ApiError("TM-SYS-5030", {"reason": "user_busy"}, retry_after_s=1)
        return (*chosen, *again), len(chosen)

    def _keys(self, user_id: str, entries: Sequence[int], now_ms: int, shards: int) -> list[Key]:
        """Of the sessions that count, oldest first: live or in flight, and not being evicted by a proposal in flight."""
        table, reservations = self._table, self._reservations
        going = reservations.evicting(user_id)
        views = (table.session(entry) for entry in entries if table.status(entry, now_ms) == _LIVE)
        keys = sorted((view.created_at, view.id) for view in views)
        # An eviction may name a session that is still in flight: the log applies that one first.
        keys += [(now_ms, session_id) for session_id in reservations.creating(user_id) if table.find(session_id) < 0]
        return [key for key in keys if key[1] not in going and shards >> shard_of(key[1]) & 1]
