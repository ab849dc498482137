"""Reach: which members have applied a sequence, which provably answer no reads without it, and which must be waited for.

Made for a revocation that is answered only when no node says yes to its token any more. A member is in one of three sets:

applied   It told so. Should it start again, it answers no reads before it is counted, and then it has the sequence (quorum.py).
fenced    It answers no reads as long as it lacks the sequence, by one of two rules:
          1. Too few can have heard it. Lacking the sequence S it needs a proof by m-1 others which had not applied S when they
             sent it: each of them heard a beat of it, sent within the last `max_staleness`, before applying S. A member that
             told S applied in a beat with echoes heard it before S no later than that beat's echo says: counted by our clock
             from when the beat arrived, which is later than when it was sent. A member whose beat has no echo of it never heard
             it in this incarnation, and in the one before not after that beat arrived. Of all others the worst is assumed: that
             they heard it just now. So what is counted can only shrink, and fewer than m-1 means: never again without S.
          2. `max_staleness` and a slack have passed since a majority had applied S: whoever is fresh since then has it.
          In both, `max_staleness` is the largest that any member has told: each goes by its own, and they differ while it is
          changed on one node after the other. One that this process has never heard is taken to have ours.
waiting   Neither. The one that judges is among these until it has applied the sequence, member or not: before that its list of
          members may be an old one, and nobody is fenced.

Rule 1 counts by our list of members, and the other may still follow the list before. So it rests while a change of members is
recent: until `max_staleness` and a slack after a majority had applied it, from when on everybody fresh has applied it too. As long,
members that were removed are waited for: they do not know it yet. A node that has just started does not know whom its list lacks
since when: until it is settled for the first time it waits for itself, that is, only the second rule is left.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tokmesh.cluster.peer import Peer

SLACK_NS: Final = 1_000_000_000  # for clocks that run at unequal rates, and answers under way


class Reach(NamedTuple):
    """Members by what is known of them about one sequence; done when none is waited for."""

    applied: frozenset[str]
    fenced: frozenset[str]
    waiting: frozenset[str]


class View(NamedTuple):
    """What one node knows when it judges: itself, the members with the time at which it learnt of each, and their beats."""

    node_id: str
    applied: int
    joined_ns: Mapping[str, int]
    peers: Mapping[str, Peer]
    departed: frozenset[str]  # removed, and perhaps not knowing it
    is_settled: bool  # no change of members is recent
    is_new: bool  # has not been settled since the start, so that `departed` may lack some
    others_needed: int  # m - 1: how many others it takes to prove oneself current
    max_staleness_ns: int  # the largest of any


def judge_reach(view: View, sequence: int, majority_reached_ns: int | None, now_ns: int) -> Reach:
    """majority_reached_ns: when a majority had applied `sequence`; None: not yet."""
    silent_since_ns = now_ns - view.max_staleness_ns - SLACK_NS
    applied = {node_id for node_id, peer in view.peers.items() if peer.applied >= sequence}
    is_past = majority_reached_ns is not None and majority_reached_ns <= silent_since_ns
    if view.applied >= sequence and (is_past or not view.is_new):
        applied.add(view.node_id)
    others = (view.joined_ns.keys() | view.departed | {view.node_id}) - applied
    if is_past:
        fenced = others
    elif view.is_settled and view.node_id in applied:
        fenced = {each for each in others if _listeners(view, each, sequence, silent_since_ns) < view.others_needed}
    else:
        fenced = set()
    return Reach(frozenset(applied), frozenset(fenced), frozenset(others - fenced))


def _listeners(view: View, node_id: str, sequence: int, silent_since_ns: int) -> int:
    # How many members can have heard `node_id` after silent_since_ns and before they applied `sequence`; we have applied it.
    peer = view.peers.get(node_id)
    heard_ns = view.joined_ns[node_id] if peer is None else peer.heard_ns
    count = int(heard_ns > silent_since_ns)
    for other in view.joined_ns.keys() - {node_id, view.node_id}:
        witness = view.peers.get(other)
        link = None if witness is None or witness.links_applied < sequence else witness.links.get(node_id)
        count += link is None or link.until_ns > silent_since_ns
    return count
