"""Which node is primary for which shard: every node finds the same answer from the same active nodes, without asking anybody.

Rendezvous hashing with a bound: each shard goes to the node that ranks highest for it among those that have not got their share
yet, so that no two nodes differ by more than one shard: below a third of the mean for up to 20 nodes; beyond, SHARDS is too coarse.
"""

from collections.abc import Iterable
from hashlib import blake2b

from tokmesh.cluster.subjects import SHARDS


def place(active: Iterable[str]) -> tuple[str, ...]:
    """The primary of every shard, in order of shards; () when no node is active."""
    node_ids = sorted(set(active))
    if not node_ids:
        return ()
    share, larger_shares = divmod(SHARDS, len(node_ids))
    counts = dict.fromkeys(node_ids, 0)
    primaries = []
    for shard in range(SHARDS):
        for node_id in sorted(node_ids, key=lambda each: _rank(shard, each), reverse=True):
            room = counts[node_id] < share
            if room or (counts[node_id] == share and larger_shares):
                larger_shares -= not room
                counts[node_id] += 1
                primaries.append(node_id)
                break
    return tuple(primaries)


def _rank(shard: int, node_id: str) -> bytes:
    return blake2b(b"%d:%b" % (shard, node_id.encode()), digest_size=8).digest()
