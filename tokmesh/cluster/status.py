"""The members as one node sees them: who is there, how far, how far away. For people and metrics; nothing is decided by it."""

from typing import Final, Literal, NamedTuple

from tokmesh.cluster.peer import Peer
from tokmesh.cluster.quorum import Figures, Quorum

DOWN_AFTER_NS: Final = 2_000_000_000


class MemberStatus(NamedTuple):
    """One member. None: not known, as nothing was heard of it since our start."""

    node_id: str
    state: Literal["active", "down"]
    is_self: bool
    silent_ns: int | None  # since it was last heard
    incarnation: int | None
    applied: int | None
    is_counted: bool
    figures: Figures
    round_trip_ns: int | None
    lag_from_ns: int | None  # how long we have been lacking what it told to have applied
    lag_to_ns: int | None  # how long ago we applied what it has not told to have applied


def member_statuses(quorum: Quorum, figures: Figures, now_ns: int) -> list[MemberStatus]:
    """Every member in order of node id, ourselves with `figures`."""
    return [
        _own(quorum, figures) if node_id == quorum.node_id else _other(quorum, node_id, quorum.peers.get(node_id), now_ns)
        for node_id in quorum.members
    ]


def _own(quorum: Quorum, figures: Figures) -> MemberStatus:
    return MemberStatus(
        quorum.node_id, "active", True, 0, quorum.incarnation, quorum.applied, quorum.is_counted, figures, 0, 0, 0
    )


def _other(quorum: Quorum, node_id: str, peer: Peer | None, now_ns: int) -> MemberStatus:
    if peer is None:
        return MemberStatus(node_id, "down", False, None, None, None, False, Figures(), None, None, None)
    beat = peer.beat
    silent_ns = now_ns - peer.heard_ns
    lacking_since_ns = peer.progress.first_at(quorum.applied + 1)
    ahead_since_ns = quorum.progress.first_at(peer.applied + 1)
    return MemberStatus(
        node_id,
        "down" if beat.leaving or silent_ns > DOWN_AFTER_NS else "active",
        False,
        silent_ns,
        beat.incarnation,
        peer.applied,
        beat.counted,
        Figures(beat.sessions, beat.pending, beat.version, beat.held, beat.keys),
        peer.round_trip_ns,
        0 if lacking_since_ns is None else now_ns - lacking_since_ns,
        0 if ahead_since_ns is None else now_ns - ahead_since_ns,
    )
