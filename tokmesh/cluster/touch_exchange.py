"""Last-active times among nodes: what was touched here is told to the others in bulk, about once a second, beside the stream.

Soft state, as it is on one node: what gets lost with a connection is told again by missed_touches.py, anything else with the next
touch. What came from others is not told again; a time never goes back, so order and repetition do not matter. Idleness
is misjudged by at most the time from a touch to its telling.
"""

import logging
import time
from typing import Final

from nats.aio.msg import Msg

from tokmesh._core.table import Outcome, Table
from tokmesh.cluster.link import Link
from tokmesh.log.record import RecordError, SessionsTouched, decode

RECEIVED_MAX: Final = 262_144
KNOWN_S: Final = 60.0  # until what others had told is drained; later the wall clock may have been set back into that time

logger = logging.getLogger("tokmesh.cluster")


class TouchExchange:
    """subject: where it is told."""

    def __init__(self, link: Link, subject: str, table: Table) -> None:
        self._link = link
        self._subject = subject
        self._table = table
        self._received: dict[bytes, int] = {}  # what others told and is not drained yet; at most RECEIVED_MAX
        self._outgoing: list[SessionsTouched] = []
        self._known_ms = (0, 0)
        self._known_until_s = 0.0
        self.undecodable = 0

    def others_know(self, from_ms: int, until_ms: int) -> None:
        """What was active in that time is known to the others: this node has it from them, and answered nobody."""
        self._known_ms = (from_ms, until_ms)
        self._known_until_s = time.monotonic() + KNOWN_S

    def note(self, record: SessionsTouched) -> None:
        """What this node has drained and is about to write down."""
        received = self._received
        from_ms, until_ms = self._known_ms if time.monotonic() < self._known_until_s else (0, 0)
        told = [
            touch
            for touch in record.touches
            if received.pop(touch[0], 0) < touch[1] and not from_ms <= touch[1] <= until_ms
        ]
        if told:
            self._outgoing.append(SessionsTouched(record.time_ms, told))

    async def tell(self) -> None:
        """Sends what was noted. Raises LinkDown; what was not sent is not kept."""
        outgoing, self._outgoing = self._outgoing, []
        for record in outgoing:
            await self._link.publish(self._subject, record.encode())

    async def heard(self, message: Msg) -> None:
        """What another node tells."""
        try:
            record = decode(message.data)
        except RecordError:
            self.undecodable += 1
            return
        if not isinstance(record, SessionsTouched):
            self.undecodable += 1
            return
        table = self._table
        for session_id, last_active_ms, ip_address, user_agent in record.touches:
            entry = table.find(session_id)
            if entry < 0 or table.session(entry).last_active >= last_active_ms:
                continue
            if table.touch(session_id, last_active_ms, ip_address, user_agent) == Outcome.DONE:  # so that it will be drained
                if len(self._received) >= RECEIVED_MAX:
                    self._received.clear()  # some are left of sessions that were forgotten meanwhile
                self._received[session_id] = last_active_ms
