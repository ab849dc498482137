"""The sessions of one user that a decision is about: in the table, by this node's clock, and in flight."""

from collections.abc import Sequence
from typing import Final

from tokmesh._core.table import Status, Table
from tokmesh.sessions.reservations import Reservations

_LIVE: Final = int(Status.LIVE)


class OfUser:
    """One user's, at `now_ms`; good until the caller awaits."""

    __slots__ = ("_entries", "_now_ms", "_reservations", "_table", "_user_id")

    def __init__(self, table: Table, user_id: str, reservations: Reservations, now_ms: int) -> None:
        self._table = table
        self._user_id = user_id
        self._reservations = reservations
        self._now_ms = now_ms
        self._entries = table.user_entries(user_id)

    @property
    def places_max(self) -> int:
        """No fewer than hold places: sessions listed may have ended, those in flight may be listed already."""
        return len(self._entries) + len(self._reservations.creating(self._user_id))

    def holders_of_places(self) -> Sequence[bytes]:
        """Ids of the sessions that count, oldest first: live or in flight, and not being evicted by a proposal in flight."""
        table, going = self._table, self._reservations.evicting(self._user_id)
        views = (table.session(entry) for entry in self._entries if table.status(entry, self._now_ms) == _LIVE)
        live = [session_id for _, session_id in sorted((view.created_at, view.id) for view in views)]
        # An eviction may name a session that is still in flight: the log applies that one first.
        return [session_id for session_id in live + self._coming() if session_id not in going]

    def living(self, except_id: bytes | None) -> list[bytes]:
        """Ids of those that live or are about to begin."""
        live = [entry for entry in self._entries if self._table.status(entry, self._now_ms) == _LIVE]
        return self._ids(live, except_id) + [session_id for session_id in self._coming() if session_id != except_id]

    def expired(self, except_id: bytes | None) -> list[bytes]:
        """Ids of those that have expired, swept or not, and are remembered."""
        due = [entry for entry in self._entries if self._table.status(entry, self._now_ms) != _LIVE]
        return self._ids(due + self._table.user_entries(self._user_id, expired=True), except_id)

    def _ids(self, entries: list[int], except_id: bytes | None) -> list[bytes]:
        ids = (self._table.session(entry).id for entry in entries)
        return [session_id for session_id in ids if session_id != except_id]

    def _coming(self) -> list[bytes]:
        # Proposed before what is decided now, so applied before it.
        return [each for each in self._reservations.creating(self._user_id) if self._table.find(each) < 0]
