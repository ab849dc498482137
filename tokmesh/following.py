"""What a node of a cluster has made of the stream: which one it follows, how far it has come, who belongs to the cluster.

Changed by `Store` only, like the table and the key ring. Invariants: `position` never goes back while the stream is the
same; a record that does not follow on the one before changes nothing, so that what the node's own log could not take is never left
out: the stream is asked for it again. `sequence_of…` tells where in the stream the last record of a subject stands, 0 where that is
not known; what it tells is at worst too old, and then the stream refuses what is based on it. `held_until_ms` is never less than
any end that was stated of a session whose life was made shorter, until that is past. `tokenless` sessions are those that began in
the stream with a token that another had, until the stream says that they are over. A shard comes to be held only by having been
loaded: what is not whole is never taken for it.
"""

from array import array
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final, NamedTuple

from tokmesh._core.table import Table
from tokmesh.ids import ALL_SHARDS, shard_of
from tokmesh.log.record import (
    AnyRecord,
    ClusterStated,
    KeyStated,
    NodeStated,
    PlaceStated,
    SessionHeld,
    SessionsRevoked,
    SessionStated,
    ShardLoaded,
    ShardsHeld,
    StreamBound,
    Streamed,
)

QUARANTINED_MAX: Final = 1000  # positions that are remembered; all are counted
MS_NS: Final = 1_000_000
_GROWTH_ENTRIES: Final = 4096
_HELD_MIN: Final = 1024  # ends that are held, before past ones are looked for


FollowingRecord = StreamBound | ClusterStated | NodeStated | SessionHeld | SessionsRevoked | ShardsHeld  # of a snapshot


class Place(NamedTuple):
    """Where nodes compare. is_exact: the table is that of all records up to there.

    It may not be where this node was late: what it found missing in the stream had been replaced by something newer, perhaps from
    behind this place. It is when nothing was missing since the place before: that one was still there when it was sent to
    this node, and the stream keeps the last one only, so what was missing by then was replaced from before this place."""

    position: int
    time_ms: int
    is_exact: bool


class Following:
    """See the module. created_ns: when the stream was made, Unix; 0: none is followed. held, loading: shards (bits). members: ids
    of the nodes that belong to the cluster; incarnations: of each node's last start. quarantined: positions of records that meant
    nothing here. loaded_ms: when it last came to hold a shard, Unix, 0 where that is not known. place: the last one seen, if any;
    placed: told of each that is applied, while the table is as of it."""

    __slots__ = (
        "_held_max",
        "_held_until_ms",
        "_missing_before",
        "_seen",
        "_sequence_by_entry",
        "_sequence_by_key",
        "_table",
        "cluster_id",
        "created_ns",
        "held",
        "incarnations",
        "loaded_ms",
        "loading",
        "members",
        "place",
        "placed",
        "position",
        "quarantined",
        "quarantined_total",
        "time_ms",
        "tokenless",
    )  # fmt: skip

    def __init__(self, table: Table) -> None:
        self._table = table
        self.cluster_id = b""
        self.created_ns = 0
        self.position = 0
        self.time_ms = 0
        self.members: tuple[str, ...] = ()
        self.incarnations: dict[str, int] = {}
        self.quarantined: list[int] = []
        self.quarantined_total = 0
        self.held = ALL_SHARDS
        self.loading = 0
        self.loaded_ms = 0
        self._seen: set[bytes] = set()  # sessions of shards that are being loaded, of which a record has come in its turn
        self.place: Place | None = None
        self.placed: Callable[[Place], None] | None = None
        self._missing_before = 0  # the last position that did not follow on the one before
        self._sequence_by_entry = array("Q")
        self._sequence_by_key: dict[bytes, int] = {}
        self._held_until_ms: dict[bytes, int] = {}
        self._held_max = _HELD_MIN
        self.tokenless: set[bytes] = set()

    @property
    def bound(self) -> bool:
        """Whether a stream is followed."""
        return self.created_ns != 0

    @property
    def first_key_id(self) -> bytes:
        """The id of the cluster's first API key, which all nodes know before there is one: a ULID of when the stream was made."""
        return (self.created_ns // MS_NS % 2**48).to_bytes(6, "big") + self.cluster_id[:10]

    def records(self) -> Iterator[FollowingRecord]:
        """Records that bring an empty one to where this one is now; none while no stream is followed. Most are made as they are
        taken, in whichever thread that is."""
        if not self.bound:
            return iter(())
        time_ms, held = self.time_ms, self._held_until_ms.copy()
        return chain(
            (StreamBound(time_ms, self.cluster_id, self.created_ns, self.position),),
            (ClusterStated(time_ms, self.cluster_id, self.members),),
            # What is being loaded is not in a snapshot: which records have come in their turn would be lost.
            () if self.held == ALL_SHARDS else (ShardsHeld(time_ms, self.held, 0),),
            [NodeStated(time_ms, name, incarnation) for name, incarnation in self.incarnations.items()],
            (SessionHeld(time_ms, each, until_ms, None) for each, until_ms in held.items() if until_ms > time_ms),
            (SessionsRevoked(time_ms, sorted(self.tokenless)),) if self.tokenless else (),
        )

    def bind(self, record: StreamBound) -> None:
        """For Store.apply."""
        self.cluster_id, self.created_ns, self.position = record.cluster_id, record.created_ns, record.position
        self.time_ms = record.time_ms
        self.place, self._missing_before = None, 0
        self._sequence_by_entry = array("Q")
        self._sequence_by_key = {}
        self.tokenless = set()

    def accepts(self, record: Streamed) -> bool:
        """Whether the record is the next. For Store.apply."""
        return record.previous == self.position and record.position > self.position

    def turn(self, session_ids: tuple[bytes, ...] | list[bytes]) -> list[bytes]:
        """Those of these sessions that are of this node, of which a record has come in its turn. For Store.apply."""
        kept = self.held | self.loading
        ids = [each for each in session_ids if kept >> shard_of(each) & 1]
        if self.loading:
            self._seen.update(each for each in ids if self.loading >> shard_of(each) & 1)
        return ids

    def awaits(self, session_id: bytes) -> bool:
        """Whether a record of that session that was read out of turn is news. For Store.apply."""
        return bool(self.loading >> shard_of(session_id) & 1) and session_id not in self._seen

    def set_shards(self, record: ShardsHeld) -> int:
        """The shards (bits) of which nothing is kept any more. For Store.apply."""
        before = self.held | self.loading
        if record.held & self.loading:
            self.loaded_ms = record.time_ms
        self.held = record.held & before
        self.loading = record.loading & ~self.held
        if not self.loading:
            self._seen = set()
        return before & ~(self.held | self.loading)

    def note_loaded(self, record: ShardLoaded, session_id: bytes) -> None:
        """The record was applied. For Store.apply."""
        self._note_entry(self._table.find(session_id), record.position)

    def advance(self, position: int, time_ms: int, record: AnyRecord) -> None:
        """`record` was applied. For Store.apply."""
        self._move_to(position)
        self.time_ms = time_ms
        if isinstance(record, SessionStated | SessionHeld):
            self._note_entry(self._table.find(record.session_id), position)
        elif isinstance(record, SessionsRevoked):
            self.tokenless.difference_update(record.session_ids)
            for session_id in record.session_ids:
                self._note_entry(self._table.find(session_id), position)
        elif isinstance(record, KeyStated):
            self._sequence_by_key[record.created.key_id] = position
        elif isinstance(record, PlaceStated):
            is_exact = self.place is not None and self._missing_before <= self.place.position
            self.place = Place(position, record.time_ms, is_exact)
            if self.placed is not None:
                self.placed(self.place)

    def advance_to(self, position: int, time_ms: int, missing: int) -> None:
        """Records were applied, the last of them at that position; where each stands is noted already. missing: the last position
        among them that did not follow on the one before, or 0. For Store.apply_all."""
        self.position, self.time_ms = position, time_ms
        self._missing_before = max(self._missing_before, missing)

    def room_for(self, entries: int) -> "array[int]":
        """Where the last record of the session at each table entry stands, with room for so many. For Store.apply_all."""
        missing = entries - len(self._sequence_by_entry)
        if missing > 0:
            self._sequence_by_entry.extend([0] * max(missing, _GROWTH_ENTRIES))
        return self._sequence_by_entry

    def pass_over(self, position: int) -> None:
        """What stood there meant nothing: it is left where it is, and told. For Store.apply."""
        self._move_to(position)
        self.quarantined_total += 1
        if len(self.quarantined) < QUARANTINED_MAX:
            self.quarantined.append(position)

    def apply_node(self, record: NodeStated) -> int:
        """1 when it changed something. For Store.apply."""
        if record.incarnation <= self.incarnations.get(record.node_id, 0):
            return 0
        self.incarnations[record.node_id] = record.incarnation
        return 1

    def apply_cluster(self, record: ClusterStated) -> int:
        """1 when it changed something. Raises ValueError for what is not of this cluster. For Store.apply."""
        if self.cluster_id and record.cluster_id != self.cluster_id:
            raise ValueError("the members of another cluster")
        changed = (self.cluster_id, self.members) != (record.cluster_id, record.members)
        self.cluster_id, self.members = record.cluster_id, record.members
        return int(changed)

    def hold(self, record: SessionHeld) -> None:
        """An end that was stated is remembered. For Store.apply."""
        held = self._held_until_ms
        held[record.session_id] = max(record.held_until_ms, held.get(record.session_id, 0))
        if len(held) >= self._held_max:
            self._held_until_ms = {each: until_ms for each, until_ms in held.items() if until_ms > record.time_ms}
            self._held_max = max(_HELD_MIN, 2 * len(self._held_until_ms))

    def held_until_ms(self, session_id: bytes) -> int:
        """The latest end ever stated of a session whose life was made shorter; 0 for any other."""
        return self._held_until_ms.get(session_id, 0)

    def sequence_of_entry(self, entry: int) -> int:
        """Of the session at a table entry."""
        return self._sequence_by_entry[entry] if 0 <= entry < len(self._sequence_by_entry) else 0

    def sequence_of_key(self, key_id: bytes) -> int:
        """Of an API key (16-byte id)."""
        return self._sequence_by_key.get(key_id, 0)

    def _move_to(self, position: int) -> None:
        if position != self.position + 1:
            self._missing_before = position
        self.position = position

    def _note_entry(self, entry: int, position: int) -> None:
        if entry >= 0:
            self.room_for(entry + 1)[entry] = position
