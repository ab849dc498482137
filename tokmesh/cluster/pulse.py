"""Whether the stream takes records, judged by what it takes: no leader's claim counts.

It is held to take none from the moment when a write has waited STUCK_NS for it, or ended without an outcome. While nothing is
written the stream is asked for itself now and then, and two answers that do not come are the same. From then on writes are refused
at once, until the stream has stored a record of this node's own, which is tried several times a second under one message id: an
episode leaves one record at most, the last start of this node once more.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import orjson

from tokmesh._core.clock import Clock
from tokmesh.cluster.ending import end
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.publishing import Publishing
from tokmesh.cluster.stream import Stream
from tokmesh.log.record import NodeStated
from tokmesh.log.stream_record import encode_aside

STUCK_NS: Final = 1_000_000_000
INTERVAL_S: Final = 0.25
PROBE_TIMEOUT_S: Final = 1.0
ASK_EVERY_NS: Final = 2_000_000_000
ASKS_FAILED_MAX: Final = 2

logger = logging.getLogger("tokmesh.cluster")


class Pulse:
    """Runs from `start` to `stop`. subject: of this node's own record; changed: to be called when `is_stuck` has changed."""

    def __init__(
        self,
        link: Link,
        stream: Stream,
        publishing: Publishing,
        clock: Clock,
        subject: str,
        node_id: str,
        incarnation: int,
        changed: Callable[[], None],
    ) -> None:
        self._link = link
        self._stream = stream
        self._publishing = publishing
        self._clock = clock
        self._subject = subject
        self._node_id = node_id
        self._incarnation = incarnation
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._stuck_since_ns: int | None = None
        self._episodes = 0
        self._asks_failed = 0
        self._asked_ns = clock.monotonic_ns()
        self._outcomes_seen = (0, 0)

    def start(self) -> None:
        """When the node has said in the stream that it has started."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="tokmesh-pulse")

    async def stop(self) -> None:
        """Ends it."""
        await end(self._task)

    @property
    def is_stuck(self) -> bool:
        """Whether the stream takes no records, as far as this node can tell."""
        return self._stuck_since_ns is not None or self._publishing.oldest_wait_ns > STUCK_NS

    @property
    def stuck_ns(self) -> int:
        """For how long; 0: it takes records."""
        return 0 if self._stuck_since_ns is None else self._clock.monotonic_ns() - self._stuck_since_ns

    async def _run(self) -> None:
        while True:  # ends by cancellation
            await asyncio.sleep(INTERVAL_S)
            self._look_at_writes()
            if self._stuck_since_ns is not None:
                if await self._probe():
                    self._set(stuck=False)
            elif self._clock.monotonic_ns() - self._asked_ns >= ASK_EVERY_NS:
                await self._ask()

    def _look_at_writes(self) -> None:
        stored, unknown = self._publishing.outcomes["stored"], self._publishing.outcomes["unknown"]
        stored_before, unknown_before = self._outcomes_seen
        self._outcomes_seen = stored, unknown
        if stored > stored_before:
            self._asked_ns, self._asks_failed = self._clock.monotonic_ns(), 0
        if self._publishing.oldest_wait_ns > STUCK_NS or (unknown > unknown_before and stored == stored_before):
            self._set(stuck=True)

    async def _ask(self) -> None:
        try:
            is_well = await self._stream.has_majority(PROBE_TIMEOUT_S)
        except (LinkDown, ApiRefused):
            is_well = False
        if is_well:
            self._asked_ns, self._asks_failed = self._clock.monotonic_ns(), 0
            return
        self._asks_failed += 1
        if self._asks_failed >= ASKS_FAILED_MAX:
            self._set(stuck=True)

    async def _probe(self) -> bool:
        record = NodeStated(self._clock.now_ms(), self._node_id, self._incarnation)
        payload = encode_aside(self._node_id, self._incarnation, record.encode())
        headers = {"Nats-Msg-Id": f"{self._node_id}.{self._incarnation}.pulse.{self._episodes}"}
        try:
            answer = await self._link.request(self._subject, payload, PROBE_TIMEOUT_S, headers)
        except LinkDown:
            return False
        return bool(answer.data) and "error" not in orjson.loads(answer.data)

    def _set(self, *, stuck: bool) -> None:
        if stuck == (self._stuck_since_ns is not None):
            return
        if stuck:
            self._episodes += 1
            self._stuck_since_ns = self._clock.monotonic_ns()
            logger.warning("the stream takes no records: writes are refused until it does")
        else:
            seconds = round(self.stuck_ns / 1e9, 1)
            self._stuck_since_ns = None
            self._asked_ns, self._asks_failed = self._clock.monotonic_ns(), 0
            logger.info("the stream takes records again", extra={"after_seconds": seconds})
        self._changed()
