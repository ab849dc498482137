"""Sessions that the stream must say are over, until it does: whoever asked for that is not waiting any more, or never asked.

- One that began with a token that another has (Following.tokenless). Who follows the stream does not have it; who comes to the
  stream when the other has been changed since would meet it first, and take it for the one that the token is of. Every node that
  knows states that it is over, whoever began it, as that one may be gone. Who reads the stream just before that, and takes the two
  the wrong way round, is found by the comparison (comparing.py).
- One that this node began and has no room for, while others may have.
- One that another node made to live longer just before this one revoked it: the stream would forget that before the session's end.
"""

from functools import partial
from typing import Final

from tokmesh._core.clock import Clock
from tokmesh.cluster.jetstream_log import DEADLINE_MS, JetStreamLog
from tokmesh.cluster.statement import Stating
from tokmesh.following import MS_NS, Following
from tokmesh.log.interface import Proposal

AGAIN_NS: Final = DEADLINE_MS * MS_NS + 200_000_000  # one statement of each at a time


class Revoking:
    """Of one node. `look` is to be called several times a second, while the node may write."""

    def __init__(self, log: JetStreamLog, stating: Stating, following: Following, clock: Clock) -> None:
        self._log = log
        self._stating = stating
        self._following = following
        self._clock = clock
        self._due_ns: dict[bytes, int] = {}  # by session, until it is stated: when that is tried next
        log.must_end = self.add

    def add(self, session_id: bytes) -> None:
        """That one too."""
        self._due_ns.setdefault(session_id, 0)

    def look(self) -> None:
        """States what is due."""
        for session_id in self._following.tokenless:
            self.add(session_id)
        now_ns = self._clock.monotonic_ns()
        for session_id in [each for each, due_ns in self._due_ns.items() if due_ns <= now_ns]:
            self._due_ns[session_id] = now_ns + AGAIN_NS
            stating = self._log.propose_alone(self._stating.revocation(session_id, self._clock.now_ms()))
            stating.add_done_callback(partial(self._done, session_id))

    def _done(self, session_id: bytes, stating: Proposal) -> None:
        if stating.exception() is None:
            self._due_ns.pop(session_id, None)
