"""The names that a cluster has on NATS: its stream, and the subjects of what is in it and beside it.

A session's subject is made of a hash of its id, so that subjects are of one length and tell nothing; the two digits before it are
the shard that the session belongs to, one of 64. nats_conf.py permits these names and no others.
"""

from hashlib import blake2b
from typing import Final

from tokmesh.ids import shard_of

INBOX_PREFIX: Final = "_INBOX_tokmesh"  # of answers to this software's requests
_HASH_BYTES: Final = 16


class Subjects:
    """Of the cluster of that name (a-z, 0-9, -)."""

    __slots__ = (
        "_activity", "_keys", "_nodes", "_questions", "_sessions", "beats", "cluster", "patterns", "place", "rebalance", "reports",
        "stream", "touches",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        root = f"tokmesh.{name}"
        self.stream = f"TOKMESH_{name}_0"
        self._sessions, self._keys, self._nodes = f"{root}.s.", f"{root}.k.", f"{root}.n."
        self.cluster = f"{root}.c.cluster"
        self.place = f"{root}.c.place"
        self.patterns = [f"{root}.{kind}.>" for kind in "sknc"]
        self.beats = f"{root}.core.beat"
        self.touches = f"{root}.core.touch"
        self.reports = f"{root}.core.report"
        self.rebalance = f"{root}.core.rebalance"
        self._activity = f"{root}.core.active."
        self._questions = f"{root}.core.ask."

    def session(self, session_id: bytes) -> str:
        """Of a session (16-byte id)."""
        digest = blake2b(session_id, digest_size=_HASH_BYTES)
        return f"{self._sessions}{shard_of(session_id):02}.{digest.hexdigest()}"

    def shard(self, shard: int) -> str:
        """Of all sessions of a shard."""
        return f"{self._sessions}{shard:02}.*"

    def key(self, key_id: bytes) -> str:
        """Of an API key (16-byte id)."""
        return self._keys + key_id.hex()

    def activity(self, node_id: str) -> str:
        """On which that node is asked who was active."""
        return self._activity + node_id

    def questions(self, node_id: str) -> str:
        """On which that node is asked about sessions that it holds."""
        return self._questions + node_id

    def node(self, node_id: str) -> str:
        """Of a node (`tmnd-…`)."""
        return self._nodes + node_id
