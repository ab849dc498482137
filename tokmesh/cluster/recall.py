"""How far back a node that is put back into a lost stream remembers what has ended.

What was revoked is remembered for `session.tombstone_ttl`, and later known to nobody. So of two nodes the one that had come less
far may have for good what the other has forgotten as ended, unless it had come to where the other's memory begins.
"""

from typing import NamedTuple

from tokmesh.cluster.statement import SLACK_MS
from tokmesh.following import Following
from tokmesh.ids import ALL_SHARDS


class Recall(NamedTuple):
    """Of one node, or of several together. known_ms: all of them know what was stated until then; since_ms: all of them know, or
    remember as ended, what has ended since then. Unix."""

    known_ms: int
    since_ms: int

    @property
    def is_whole(self) -> bool:
        """Whether none of them has for good what another has forgotten as ended."""
        return self.known_ms >= self.since_ms

    def beside(self, other: "Recall") -> "Recall":
        """Of both together."""
        return Recall(min(self.known_ms, other.known_ms), max(self.since_ms, other.since_ms))


def recall_of(following: Following, snapshot_ms: int, tombstone_ttl_ms: int) -> Recall:
    """Of a node; snapshot_ms: when the snapshot was taken that it was loaded from, or 0: a node that was cut off goes on
    forgetting. Of shards that it has loaded it knows nothing of what had ended before. Clocks may differ by as much as SLACK_MS."""
    known_ms = following.time_ms
    since_ms = max(known_ms, snapshot_ms) - max(tombstone_ttl_ms - SLACK_MS, 0)
    if following.held != ALL_SHARDS:  # a snapshot does not tell when they were loaded
        since_ms = max(since_ms, snapshot_ms)
    return Recall(known_ms, min(known_ms, max(since_ms, following.loaded_ms)))
