"""A consumer at the stream: what the stream holds, pushed by a server, in order and once.

Ephemeral: the server forgets it with the connection. A gap in its numbering, what does not follow on what was taken, its silence or
its end end it; who wants more makes another. What its sink has no room for is held, in order, and the server's flow control, which
is not answered meanwhile, bounds how much that can be.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from tokmesh._core.clock import Clock
from tokmesh._core.streamed import Deliveries, StreamedBatch
from tokmesh.cluster.ending import end
from tokmesh.cluster.link import Link, LinkDown

HEARTBEAT_NS: Final = 250_000_000
SILENCE_S: Final = 1.0
CREATE_TIMEOUT_S: Final = 1.0
INACTIVE_NS: Final = 5_000_000_000

logger = logging.getLogger("tokmesh.cluster")


class Sink(Protocol):
    """Where records go."""

    @property
    def position(self) -> int:
        """Sequence of the last record taken."""

    def take(self, batch: StreamedBatch) -> bool:
        """The next records there are. False when they do not follow on what was taken: nor will what comes behind them."""

    @property
    def has_room(self) -> bool:
        """Whether more is to be given to it now."""

    async def wait_for_room(self) -> None:
        """Until it is."""


class Consumer:
    """From where the sink has come to. wanted: which records of the stream, as its configuration says; all of them when left out.
    take: gets those that the sink lacks."""

    def __init__(
        self,
        link: Link,
        stream: str,
        sink: Sink,
        clock: Clock,
        take: Callable[[StreamedBatch], bool],
        wanted: Mapping[str, object] | None = None,
    ) -> None:
        self._link = link
        self._stream = stream
        self._sink = sink
        self._give = take
        self._wanted = wanted
        self._name = f"tokmesh_{secrets.token_hex(8)}"
        self._inbox = link.new_inbox()
        self.deliveries = Deliveries(sink.position, clock)
        self._held: deque[StreamedBatch | str] = deque()  # batches, and subjects to answer behind them
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._heard_s = time.monotonic()
        self._ended = asyncio.Event()
        self._why = ""

    async def open(self) -> None:
        """Raises LinkDown, ApiRefused."""
        self._subscription = await self._link.subscribe_direct(self._inbox, self)
        config = {
            "name": self._name,
            "deliver_subject": self._inbox,
            **(self._wanted or {"deliver_policy": "by_start_sequence", "opt_start_seq": self.deliveries.position + 1}),
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": HEARTBEAT_NS,
            "inactive_threshold": INACTIVE_NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        try:
            await self._link.ask(f"CONSUMER.CREATE.{self._stream}.{self._name}", body, CREATE_TIMEOUT_S)
        except BaseException:
            await self._link.unsubscribe_direct(self._subscription)
            raise
        self._heard_s = time.monotonic()
        self._worker = asyncio.get_running_loop().create_task(self._work(), name="tokmesh-consumer")

    async def watch(self) -> None:
        """Returns when it has ended or fallen silent."""
        while not self._ended.is_set():
            try:
                await asyncio.wait_for(self._ended.wait(), SILENCE_S / 4)
            except TimeoutError:
                if self._worker is not None and self._worker.done():
                    self._end("what was held could not be taken")
                elif time.monotonic() - self._heard_s > SILENCE_S:
                    self._end("silent")
        logger.info("the consumer at the stream ended", extra={"reason": self._why})

    async def close(self) -> None:
        """Gives it back."""
        self._ended.set()
        await end(self._worker)
        await self._link.unsubscribe_direct(self._subscription)
        try:
            await self._link.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b"")
        except LinkDown:
            pass  # the server forgets it by itself

    def _end(self, why: str) -> None:
        self._why = why
        self._ended.set()

    # ── what the link tells, in order ──

    def delivered(self) -> None:
        """As Direct's."""
        batches = self.deliveries.take()
        if self._ended.is_set():
            return
        for batch in batches:
            self._heard_s = time.monotonic()
            if self._held or not self._sink.has_room:
                self._hold(batch)
            else:
                self._pass_on(batch)
        if self.deliveries.fault is not None:
            self._end(self.deliveries.fault)

    def told(self, reply: str, headers: dict[str, str]) -> None:
        """As Direct's."""
        if self._ended.is_set():
            return
        self._heard_s = time.monotonic()
        status, last = headers.get("Status"), headers.get("Nats-Last-Consumer", "")
        if status != "100":
            self._end(f"status {status}")
        elif reply:
            self._hold(reply)
        elif last.isdigit() and int(last) >= self.deliveries.due:
            self._end(f"delivery {self.deliveries.due} never came")
        elif stalled := headers.get("Nats-Consumer-Stalled"):
            self._hold(stalled)

    def _pass_on(self, batch: StreamedBatch) -> None:
        if not self._give(batch):
            self._end("what came does not follow on what was taken")

    def _hold(self, item: StreamedBatch | str) -> None:
        self._held.append(item)
        self._wake.set()

    async def _work(self) -> None:
        """Takes and answers what is held. What comes meanwhile is held behind it."""
        while True:  # ends by cancellation
            await self._wake.wait()
            self._wake.clear()
            while self._held:
                item = self._held[0]
                if isinstance(item, StreamedBatch):
                    if not self._sink.has_room:
                        await self._sink.wait_for_room()
                        self._heard_s = time.monotonic()
                    if not self._ended.is_set():
                        self._pass_on(item)
                else:
                    await self._answer(item)
                self._held.popleft()

    async def _answer(self, subject: str) -> None:
        try:
            await self._link.publish(subject, b"")
        except LinkDown as error:
            logger.debug("flow control was not answered", extra={"reason": str(error)})
