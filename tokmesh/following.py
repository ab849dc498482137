"""What a node of a cluster has made of the stream: which one it follows, how far it has come, who belongs to the cluster.

Changed by `Store` only, like the table and the key ring. Invariants: `position` never goes back while the stream is the
same; a record that does not follow on the one before changes nothing, so that what the node's own log could not take is never left
out: the stream is asked for it again. `sequence_of…` tells where in the stream the last record of a subject stands, 0 where that is
not known; what it tells is at worst too old, and then the stream refuses what is based on it.
"""

from array import array
from typing import Final

from tokmesh._core.table import Table
from tokmesh.log.record import (
    AnyRecord,
    ClusterStated,
    KeyStated,
    NodeStated,
    SessionsRevoked,
    SessionStated,
    StreamBound,
    Streamed,
)

QUARANTINED_MAX: Final = 1000  # positions that are remembered; all are counted
_GROWTH_ENTRIES: Final = 4096


class Following:
    """See the module. created_ns: when the stream was made, Unix; 0: none is followed. members: ids of the nodes that belong to the
    cluster; incarnations: of each node's last start. quarantined: positions of records that meant nothing here."""

    __slots__ = (
        "_sequence_by_entry",
        "_sequence_by_key",
        "_table",
        "cluster_id",
        "created_ns",
        "incarnations",
        "members",
        "position",
        "quarantined",
        "quarantined_total",
        "time_ms",
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
        self._sequence_by_entry = array("Q")
        self._sequence_by_key: dict[bytes, int] = {}

    @property
    def bound(self) -> bool:
        """Whether a stream is followed."""
        return self.created_ns != 0

    def records(self) -> list[StreamBound | ClusterStated | NodeStated]:
        """Records that bring an empty one here; none while no stream is followed."""
        if not self.bound:
            return []
        found: list[StreamBound | ClusterStated | NodeStated] = [
            StreamBound(self.time_ms, self.cluster_id, self.created_ns, self.position)
        ]
        found.append(ClusterStated(self.time_ms, self.cluster_id, self.members))
        return found + [NodeStated(self.time_ms, name, incarnation) for name, incarnation in self.incarnations.items()]

    def bind(self, record: StreamBound) -> None:
        """For Store.apply."""
        self.cluster_id, self.created_ns, self.position = record.cluster_id, record.created_ns, record.position
        self.time_ms = record.time_ms
        self._sequence_by_entry = array("Q")
        self._sequence_by_key = {}

    def accepts(self, record: Streamed) -> bool:
        """Whether the record is the next. For Store.apply."""
        return record.previous == self.position and record.position > self.position

    def advance(self, position: int, time_ms: int, record: AnyRecord) -> None:
        """`record` was applied. For Store.apply."""
        self.position, self.time_ms = position, time_ms
        if isinstance(record, SessionStated):
            self._note_entry(self._table.find(record.session_id), position)
        elif isinstance(record, SessionsRevoked):
            for session_id in record.session_ids:
                self._note_entry(self._table.find(session_id), position)
        elif isinstance(record, KeyStated):
            self._sequence_by_key[record.created.key_id] = position

    def advance_to(self, position: int, time_ms: int) -> None:
        """Records were applied, the last of them at that position; where each stands is noted already. For Store.apply_all."""
        self.position, self.time_ms = position, time_ms

    def room_for(self, entries: int) -> "array[int]":
        """Where the last record of the session at each table entry stands, with room for so many. For Store.apply_all."""
        missing = entries - len(self._sequence_by_entry)
        if missing > 0:
            self._sequence_by_entry.extend([0] * max(missing, _GROWTH_ENTRIES))
        return self._sequence_by_entry

    def pass_over(self, position: int) -> None:
        """What stood there meant nothing: it is left where it is, and told. For Store.apply."""
        self.position = position
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
        """1 when it changed something. For Store.apply."""
        changed = (self.cluster_id, self.members) != (record.cluster_id, record.members)
        self.cluster_id, self.members = record.cluster_id, record.members
        return int(changed)

    def sequence_of_entry(self, entry: int) -> int:
        """Of the session at a table entry."""
        return self._sequence_by_entry[entry] if 0 <= entry < len(self._sequence_by_entry) else 0

    def sequence_of_key(self, key_id: bytes) -> int:
        """Of an API key (16-byte id)."""
        return self._sequence_by_key.get(key_id, 0)

    def _note_entry(self, entry: int, position: int) -> None:
        if entry >= 0:
            self.room_for(entry + 1)[entry] = position
