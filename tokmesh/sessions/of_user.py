"""The sessions of one user that a revocation of all of them is about: in the table, by this node's clock, and in flight."""

from collections.abc import Iterable
from typing import Final

from tokmesh._core.table import Status, Table
from tokmesh.ids import shard_of
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

    def living(self, except_id: bytes | None, shards: int) -> list[bytes]:
        """Ids, of these shards (bits), of those that live or are about to begin."""
        live = [entry for entry in self._entries if self._table.status(entry, self._now_ms) == _LIVE]
        # Proposed before what is decided now, so applied before it.
        coming = [each for each in self._reservations.creating(self._user_id) if self._table.find(each) < 0]
        return _of((*self._ids(live), *coming), except_id, shards)

    def expired(self, except_id: bytes | None, shards: int) -> list[bytes]:
        """Ids, of these shards (bits), of those that have expired, swept or not, and are remembered."""
        due = [entry for entry in self._entries if self._table.status(entry, self._now_ms) != _LIVE]
        return _of(self._ids(due + self._table.user_entries(self._user_id, expired=True)), except_id, shards)

    def _ids(self, entries: list[int]) -> Iterable[bytes]:
        return (self._table.session(entry).id for entry in entries)


def _of(ids: Iterable[bytes], except_id: bytes | None, shards: int) -> list[bytes]:
    return [each for each in ids if each != except_id and shards >> shard_of(each) & 1]
