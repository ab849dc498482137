"""Publishing to the stream until the outcome is known, or the time for it is over.

A message goes out with an id, so that sending it again, after an answer that did not come, stores it once. Outcomes: stored at a
sequence; a conflict (the subject's last record is not the one expected); refused; unknown, when the deadline comes first, as it may
still be stored. Invariant: every publication is told exactly one outcome, `stored` or `failed`.

A conflict is believed only with a newer record to show. A server that leads no more, and does not know it yet, has an older one
than the expected, while the message may reach the new leader as well: what it says is passed over, unless the record that was
expected is gone for good (Stream.has_dropped): nothing can follow on that. A record that is being stored may come to nothing, so
the stream is asked after a moment, and without a newer one the message goes out again. A conflict told to a second sending may be
with the message's own first sending: then the newer record must be known to follow on the one expected.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import orjson
from nats.aio.msg import Msg

from tokmesh._core.clock import Clock
from tokmesh.cluster.ending import end
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.link import ApiRefused, Link, LinkDown
from tokmesh.cluster.statement import UNCONDITIONAL, UNKNOWN, lifetime
from tokmesh.cluster.stream import Stored, Stream
from tokmesh.errors import ApiError

RESEND_NS: Final = 500_000_000
TICK_S: Final = 0.1
UNDER_WAY_S: Final = 0.01  # about as long as a record takes to be stored
WRONG_LAST_SEQUENCE: Final = 10071  # and its number is told
RECORD_UNDER_WAY: Final = 10164  # the same, by one that is being stored
ID_UNDER_WAY: Final = 10158  # this very message is being stored
UNAVAILABLE: Final = 503

logger = logging.getLogger("tokmesh.cluster")


class Publication:
    """One message. number: of this start of the node, unique; position: that the decision was made at. The three callbacks are
    told: stored(sequence), failed(error)."""

    __slots__ = ("attempts", "conflict", "deadline_ns", "expected", "failed", "headers", "number", "payload", "position", "sent_ns",
                 "stored", "subject")  # fmt: skip

    def __init__(
        self,
        number: int,
        subject: str,
        payload: bytes,
        expected: int,
        ttl_ms: int,
        conflict: str,
        position: int,
        deadline_ns: int,
        message_id: str,
        stored: Callable[[int], None],
        failed: Callable[[ApiError], None],
    ) -> None:
        self.number = number
        self.subject = subject
        self.payload = payload
        self.expected = expected
        self.conflict = conflict
        self.position = position
        self.deadline_ns = deadline_ns
        self.stored = stored
        self.failed = failed
        self.headers = {"Nats-Msg-Id": message_id, **lifetime(ttl_ms)}
        self.attempts = 0
        self.sent_ns = 0


class Tracing(Protocol):
    def begin(self, publication: Publication) -> None: ...


class Publishing:
    """Runs from `start` to `stop`. link, stream: of the cluster. tracing: told of each publication before it is sent."""

    def __init__(self, link: Link, stream: Stream, clock: Clock) -> None:
        self._link = link
        self._stream = stream
        self._clock = clock
        self._inbox = ""
        self._due: deque[Publication] = deque()
        self._under_way: dict[int, Publication] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self.tracing: Tracing | None = None
        self.resent_total = 0
        self.outcomes = {"stored": 0, "conflict": 0, "refused": 0, "unknown": 0}

    async def start(self) -> None:
        """When there was a connection."""
        self._inbox = self._link.new_inbox()
        await self._link.subscribe(f"{self._inbox}.*", self._answered)
        self._tasks = [begin(work, "tokmesh-publishing") for work in (self._pump, self._watch)]

    async def stop(self) -> None:
        """Whatever is under way has an unknown outcome then."""
        await end(*self._tasks, *self._asking)
        for publication in list(self._under_way.values()):
            self._end(publication, unknown_outcome())

    def put(self, publication: Publication) -> None:
        """Sends it soon."""
        if self.tracing is not None:
            self.tracing.begin(publication)
        self._under_way[publication.number] = publication
        self._due.append(publication)
        self._wake.set()

    async def publish_once(self, subject: str, payload: bytes, expected: int) -> None:
        """Sends without waiting for an outcome. Raises LinkDown."""
        await self._link.publish(subject, payload, headers={"Nats-Expected-Last-Subject-Sequence": str(expected)})

    def seen(self, number: int, sequence: int) -> None:
        """The stream has delivered the message of that number, whatever has been answered."""
        publication = self._under_way.pop(number, None)
        if publication is not None:
            self.outcomes["stored"] += 1
            publication.stored(sequence)

    @property
    def oldest_wait_ns(self) -> int:
        """How long the oldest message under way has waited for its outcome; 0: none."""
        for publication in self._under_way.values():
            return max(0, self._clock.monotonic_ns() - publication.sent_ns) if publication.sent_ns else 0
        return 0

    def __len__(self) -> int:
        return len(self._under_way)

    async def _pump(self) -> None:
        while True:  # ends by cancellation
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                publication = self._due.popleft()
                if publication.number in self._under_way:
                    await self._send(publication)

    async def _send(self, publication: Publication) -> None:
        if publication.expected == UNKNOWN:
            self._ask(publication, self._learn)
            return
        if publication.attempts == 0:
            publication.sent_ns = publication.sent_ns or self._clock.monotonic_ns()
            if publication.expected != UNCONDITIONAL:
                publication.headers["Nats-Expected-Last-Subject-Sequence"] = str(publication.expected)
        if not self._link.connected:
            return  # nothing has gone out: it is tried again at the next tick
        publication.attempts += 1
        try:
            reply = f"{self._inbox}.{publication.number}"
            await self._link.publish(publication.subject, publication.payload, reply, publication.headers)
        except LinkDown as error:
            logger.debug("not sent; it will be again", extra={"reason": str(error)})

    async def _answered(self, message: Msg) -> None:
        number = message.subject.rpartition(".")[2]
        publication = self._under_way.get(int(number)) if number.isdigit() else None
        if publication is None or not message.data:  # known already; or nobody was there to answer
            return
        answer = orjson.loads(message.data)
        error = answer.get("error")
        if error is None:
            self.seen(publication.number, int(answer["seq"]))
        elif error.get("err_code") == WRONG_LAST_SEQUENCE:
            last = _number_in(str(error.get("description", "")))
            if last > publication.expected and publication.attempts == 1:
                self._conflict(publication)
            elif last >= publication.expected:
                self._ask(publication, self._look_again, UNDER_WAY_S)
            elif last == 0 and publication.attempts == 1:
                self._start(self._look_whether_dropped(publication))
        elif error.get("err_code") == RECORD_UNDER_WAY:
            self._ask(publication, self._look_again, UNDER_WAY_S)
        elif error.get("err_code") != ID_UNDER_WAY and error.get("code") != UNAVAILABLE:
            reason = str(error.get("description", "refused"))
            logger.warning("the stream took no record", extra={"reason": reason})
            self._end(publication, ApiError("TM-CLST-5030", {"reason": "stream_refused"}, retry_after_s=1), "refused")

    async def _watch(self) -> None:
        while True:  # ends by cancellation
            await asyncio.sleep(TICK_S)
            now_ns = self._clock.monotonic_ns()
            for publication in list(self._under_way.values()):
                if now_ns >= publication.deadline_ns:
                    self._end(publication, unknown_outcome())
                elif publication.sent_ns and now_ns - publication.sent_ns >= RESEND_NS * publication.attempts:
                    self.resent_total += publication.attempts > 0
                    self._due.append(publication)
                    self._wake.set()

    def _ask(
        self, publication: Publication, judge: Callable[[Publication, Stored | None], None], after_s: float = 0.0
    ) -> None:
        self._start(self._judge(publication, judge, after_s))

    def _start(self, asking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(asking)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _look_whether_dropped(self, publication: Publication) -> None:
        try:
            is_dropped = await self._stream.has_dropped(publication.subject, publication.expected)
        except (LinkDown, ApiRefused):
            return  # it is sent again, and answered again
        if is_dropped and publication.attempts == 1:
            self._conflict(publication)

    async def _judge(
        self, publication: Publication, judge: Callable[[Publication, Stored | None], None], after_s: float
    ) -> None:
        await asyncio.sleep(after_s)
        while publication.number in self._under_way:  # until the deadline
            try:
                found = await self._stream.last(publication.subject)
            except (LinkDown, ApiRefused):
                await asyncio.sleep(TICK_S)
            else:
                if publication.number in self._under_way:
                    judge(publication, found)
                return

    def _learn(self, publication: Publication, found: Stored | None) -> None:
        """Which sequence the decision was made on: nothing newer than what the node knew then."""
        sequence = 0 if found is None else found.sequence
        if sequence > publication.position:
            self._conflict(publication)
            return
        publication.expected = sequence
        self._due.append(publication)
        self._wake.set()

    def _look_again(self, publication: Publication, found: Stored | None) -> None:
        sequence = 0 if found is None else found.sequence
        if found is not None and found.id == publication.headers["Nats-Msg-Id"]:
            self.seen(publication.number, sequence)
        elif sequence <= publication.expected:  # nobody has come before it, or a server is asked that leads no more
            self._due.append(publication)
            self._wake.set()
        elif publication.attempts == 1 or (found is not None and found.follows == publication.expected):
            self._conflict(publication)
        else:  # it may have been stored, and another after it
            self._end(publication, unknown_outcome())

    def _conflict(self, publication: Publication) -> None:
        self._end(publication, ApiError(publication.conflict), "conflict")

    def _end(self, publication: Publication, error: ApiError, outcome: str = "unknown") -> None:
        if self._under_way.pop(publication.number, None) is not None:
            self.outcomes[outcome] += 1
            publication.failed(error)


def _number_in(description: str) -> int:
    """The sequence that "wrong last sequence: 7" tells; -1 without one."""
    found = re.search(r"(\d+)\s*$", description)
    return int(found[1]) if found else -1


def unknown_outcome() -> ApiError:
    """What is told when the time is over: the change may have been made, and may still be."""
    return ApiError("TM-CLST-5030", {"reason": "no_quorum", "outcome": "unknown"}, retry_after_s=1)
