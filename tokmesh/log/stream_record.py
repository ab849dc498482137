"""Records of a cluster: whose stream a node follows and how far, and who belongs to it. Their bytes are told in record.py.

What the stream holds is an envelope: who proposed a record, and the record's bytes. What a node's own log holds of it is the same
envelope with its place in the stream (`Streamed`), so that the log of a node is a copy of the stream as far as it has come.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tokmesh.ids import MEMBERS_MAX
from tokmesh.log.record_format import FORMAT, HEAD, Record, RecordError, require

NODE_ID_BYTES_MAX: Final = 128
REQUEST_ID_BYTES_MAX: Final = 64
ENVELOPE_FORMAT: Final = 1

_ENVELOPE: Final = struct.Struct("<BQQBB")
_STREAMED: Final = struct.Struct("<BBqQQ")
_BOUND: Final = struct.Struct("<BBq16sqQ")
_NODE: Final = struct.Struct("<BBqQB")
_CLUSTER: Final = struct.Struct("<BBq16sB")
_SHARDS: Final = struct.Struct("<BBqQQ")
_LOADED: Final = struct.Struct("<BBqQ")


class Envelope(NamedTuple):
    """origin: id of the node that proposed `record` (its bytes); incarnation, number: its start, and which of its proposals since;
    request_id: of the request that asked for it, or ""."""

    origin: str
    incarnation: int
    number: int
    request_id: str
    record: bytes

    def encode(self) -> bytes:
        """The bytes of a message of the stream."""
        origin, request = self.origin.encode(), self.request_id.encode()
        head = _ENVELOPE.pack(ENVELOPE_FORMAT, self.incarnation, self.number, len(origin), len(request))
        return b"".join((head, origin, request, self.record))


def encode_aside(origin: str, incarnation: int, record: bytes) -> bytes:
    """The message of a record that is no proposal, so that nobody waits for it: proposals are numbered from 1."""
    return Envelope(origin, incarnation, 0, "", record).encode()


class UnknownFormat(RecordError):
    """An envelope of a format that this release does not know: a newer one wrote it."""


def decode_envelope(payload: bytes) -> Envelope:
    """Raises RecordError; UnknownFormat where a newer release must have written it."""
    try:
        format_number, incarnation, number, origin_length, request_length = _ENVELOPE.unpack_from(payload)
        if format_number != ENVELOPE_FORMAT:
            raise UnknownFormat("unknown format of an envelope")
        request_at = _ENVELOPE.size + origin_length
        record_at = request_at + request_length
        require(
            len(payload) > record_at and 0 < origin_length <= NODE_ID_BYTES_MAX and request_length <= REQUEST_ID_BYTES_MAX
        )
        origin = payload[_ENVELOPE.size : request_at].decode()
        return Envelope(origin, incarnation, number, payload[request_at:record_at].decode(), payload[record_at:])
    except (struct.error, UnicodeDecodeError) as error:
        raise RecordError("no envelope") from error


def kind_of(payload: bytes) -> int:
    """Of the record in an envelope, 0 where there is none; nothing else of it is looked at."""
    if len(payload) < _ENVELOPE.size or payload[0] != ENVELOPE_FORMAT:
        return 0
    record_at = _ENVELOPE.size + payload[_ENVELOPE.size - 2] + payload[_ENVELOPE.size - 1]
    return payload[record_at] if record_at < len(payload) else 0


class Streamed(Record):
    """What stood at `position` of the stream. previous: the position that the node had come to before; they may be far apart, as
    the stream keeps only the last record of a subject."""

    __slots__ = ("envelope", "position", "previous")
    KIND = 32

    def __init__(self, time_ms: int, position: int, previous: int, envelope: bytes) -> None:
        self.time_ms = time_ms
        self.position = position
        self.previous = previous
        self.envelope = envelope

    def encode(self) -> bytes:
        return _STREAMED.pack(32, FORMAT, self.time_ms, self.position, self.previous) + self.envelope


class StreamBound(Record):
    """The node follows the stream that was made at `created_ns` (Unix) and belongs to that cluster, and has come to `position`."""

    __slots__ = ("cluster_id", "created_ns", "position")
    KIND = 33

    def __init__(self, time_ms: int, cluster_id: bytes, created_ns: int, position: int) -> None:
        self.time_ms = time_ms
        self.cluster_id = cluster_id
        self.created_ns = created_ns
        self.position = position

    def encode(self) -> bytes:
        return _BOUND.pack(33, FORMAT, self.time_ms, self.cluster_id, self.created_ns, self.position)


class NodeStated(Record):
    """A node has started: incarnation, of this start, is larger than of any before."""

    __slots__ = ("incarnation", "node_id")
    KIND = 34

    def __init__(self, time_ms: int, node_id: str, incarnation: int) -> None:
        self.time_ms = time_ms
        self.node_id = node_id
        self.incarnation = incarnation

    def encode(self) -> bytes:
        name = self.node_id.encode()
        return _NODE.pack(34, FORMAT, self.time_ms, self.incarnation, len(name)) + name


class ClusterStated(Record):
    """The cluster's identity, made with its stream, and the nodes that belong to it, in order of their ids."""

    __slots__ = ("cluster_id", "members")
    KIND = 35

    def __init__(self, time_ms: int, cluster_id: bytes, members: Sequence[str]) -> None:
        self.time_ms = time_ms
        self.cluster_id = cluster_id
        self.members = tuple(sorted(members))

    def encode(self) -> bytes:
        names = [name.encode() for name in self.members]
        head = _CLUSTER.pack(35, FORMAT, self.time_ms, self.cluster_id, len(names))
        return b"".join((head, *(bytes((len(name),)) + name for name in names)))


class PlaceStated(Record):
    """A place of the stream at which the nodes compare their tables (cluster/comparing.py). It changes nothing."""

    __slots__ = ()
    KIND = 36

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms

    def encode(self) -> bytes:
        return HEAD.pack(36, FORMAT, self.time_ms)


class ShardsHeld(Record):
    """Which shards the node has whole from now on, and which it is loading (bits; none is both). Of sessions of others it keeps
    nothing. Only what was being loaded can come to be held."""

    __slots__ = ("held", "loading")
    KIND = 37

    def __init__(self, time_ms: int, held: int, loading: int) -> None:
        self.time_ms = time_ms
        self.held = held
        self.loading = loading

    def encode(self) -> bytes:
        return _SHARDS.pack(37, FORMAT, self.time_ms, self.held, self.loading)


class ShardLoaded(Record):
    """What stands at `position` of the stream, read out of turn because the node is loading the shard of its session."""

    __slots__ = ("envelope", "position")
    KIND = 38

    def __init__(self, time_ms: int, position: int, envelope: bytes) -> None:
        self.time_ms = time_ms
        self.position = position
        self.envelope = envelope

    def encode(self) -> bytes:
        return _LOADED.pack(38, FORMAT, self.time_ms, self.position) + self.envelope


StreamRecord = Streamed | StreamBound | NodeStated | ClusterStated | PlaceStated | ShardsHeld | ShardLoaded


def _decode_streamed(payload: bytes) -> Streamed:
    _, _, time_ms, position, previous = _STREAMED.unpack_from(payload)
    require(position > previous)  # what stood there may be nothing at all: whoever may publish can do that
    return Streamed(time_ms, position, previous, payload[_STREAMED.size :])


def _decode_bound(payload: bytes) -> StreamBound:
    _, _, time_ms, cluster_id, created_ns, position = _BOUND.unpack(payload)
    return StreamBound(time_ms, cluster_id, created_ns, position)


def _decode_node(payload: bytes) -> NodeStated:
    _, _, time_ms, incarnation, length = _NODE.unpack_from(payload)
    require(0 < length <= NODE_ID_BYTES_MAX and len(payload) == _NODE.size + length)
    return NodeStated(time_ms, payload[_NODE.size :].decode(), incarnation)


def _decode_cluster(payload: bytes) -> ClusterStated:
    _, _, time_ms, cluster_id, count = _CLUSTER.unpack_from(payload)
    require(count <= MEMBERS_MAX)
    members: list[str] = []
    at = _CLUSTER.size
    for _ in range(count):
        require(at < len(payload))
        end = at + 1 + payload[at]
        require(at + 1 < end <= len(payload) and payload[at] <= NODE_ID_BYTES_MAX)
        members.append(payload[at + 1 : end].decode())
        at = end
    require(at == len(payload) and members == sorted(set(members)))
    return ClusterStated(time_ms, cluster_id, members)


def _decode_place(payload: bytes) -> PlaceStated:
    require(len(payload) == HEAD.size)
    return PlaceStated(HEAD.unpack(payload)[2])


def _decode_shards(payload: bytes) -> ShardsHeld:
    _, _, time_ms, held, loading = _SHARDS.unpack(payload)
    require(not held & loading)
    return ShardsHeld(time_ms, held, loading)


def _decode_loaded(payload: bytes) -> ShardLoaded:
    _, _, time_ms, position = _LOADED.unpack_from(payload)
    return ShardLoaded(time_ms, position, payload[_LOADED.size :])


STREAM_DECODERS: Final[dict[int, Callable[[bytes], StreamRecord]]] = {
    32: _decode_streamed,
    33: _decode_bound,
    34: _decode_node,
    35: _decode_cluster,
    36: _decode_place,
    37: _decode_shards,
    38: _decode_loaded,
}
