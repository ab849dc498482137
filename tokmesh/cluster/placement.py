"""Which nodes are to hold which shard: every node finds the same answer from the same nodes, without asking anybody.

Rendezvous hashing with a bound: each copy of a shard goes to the node that ranks highest for it among those that have not got their
share yet, so that no two nodes differ by more than one shard in their first copies: below a third of the mean for up to 20 nodes;
beyond, SHARDS is too coarse. A shard's copies are on different nodes; where only nodes that have their share are left for one, the
share gives way.
"""

from collections.abc import Iterable
from hashlib import blake2b

from tokmesh.ids import SHARDS


def place(node_ids: Iterable[str], copies: int) -> tuple[tuple[str, ...], ...]:
    """The holders of every shard, in order of shards, each shard's primary first: `copies` of them, or all nodes where there are
    fewer; () without a node."""
    known = sorted(set(node_ids))
    if not known:
        return ()
    ranked = [sorted(known, key=lambda each: _rank(shard, each), reverse=True) for shard in range(SHARDS)]
    holders: list[list[str]] = [[] for _ in range(SHARDS)]
    for _ in range(min(copies, len(known))):
        share, larger_shares = divmod(SHARDS, len(known))
        counts = dict.fromkeys(known, 0)
        for shard in range(SHARDS):
            left = [node_id for node_id in ranked[shard] if node_id not in holders[shard]]
            within = (each for each in left if counts[each] < share or (counts[each] == share and larger_shares))
            chosen = next(within, left[0])
            larger_shares -= counts[chosen] == share
            counts[chosen] += 1
            holders[shard].append(chosen)
    return tuple(tuple(each) for each in holders)


def _rank(shard: int, node_id: str) -> bytes:
    return blake2b(b"%d:%b" % (shard, node_id.encode()), digest_size=8).digest()
