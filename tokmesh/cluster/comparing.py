"""The nodes compare their tables: a place is made in the stream every few seconds, each node surveys its sessions and API keys
as of that place and tells the others what it found, and judges what they told (comparison.py).

Equal tables never differ here. A survey begins in the turn in which the place is applied, so it is of the records up to there
and no others (_core/survey.pyx, key_survey.py). A node that may lack some of those tells nothing (`Place.is_exact`). What counts is
what ends more than MARGIN_MS after the place's own time, and a node whose clock has come near that tells nothing either: nobody has
forgotten what another still counts. Of sessions with an idle limit see _core/survey.pyx.

Places are made by the active member with the lowest id; should it make none, or none whose time can be right, by the next one
after another interval. They come seldom enough for the maker to spend no more than SHARE_MAX of its time on surveys; a survey
holds up the loop for one step at a time. What cannot be sent is not sent later, and a place that comes while a node surveys the one
before is none for it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, Protocol, TypeVar

from nats.aio.msg import Msg

from tokmesh._core.clock import Clock
from tokmesh._core.survey import Survey
from tokmesh.cluster.comparison import Comparison, Verdict
from tokmesh.cluster.ending import end
from tokmesh.cluster.key_survey import KeySurvey
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.link import Link, LinkDown
from tokmesh.cluster.report import Report, ReportError, decode_report, encode_report
from tokmesh.cluster.statement import lifetime
from tokmesh.cluster.subjects import Subjects
from tokmesh.following import Following, Place
from tokmesh.keyring import KeyRing
from tokmesh.log.record import PlaceStated
from tokmesh.log.stream_record import encode_aside

INTERVAL_NS: Final = 5_000_000_000
SHARE_MAX: Final = 0.01
TICK_S: Final = 0.25
PLACE_TTL_MS: Final = 60_000
MARGIN_MS: Final = 60_000
LATE_MS_MAX: Final = 30_000  # half of the margin, so that clocks may differ by the other half
STEP_ENTRIES: Final = 1_000  # see Survey.step: a tenth of a millisecond when quiet
STEP_KEYS: Final = 20
PAUSE_SHARE: Final = 4.0  # a pause lasts as many times as the step before it
PAUSE_MIN_S: Final = 0.0005

T = TypeVar("T")

logger = logging.getLogger("tokmesh.cluster")


class Surveyed(Protocol):
    """The table."""

    def begin_survey(self, key: tuple[int, int], beyond_ms: int) -> Survey: ...


class Comparing:
    """Hears from `listen` on, makes places from `start` to `stop`. copies: as of Comparison. rank: of this node among the active
    members, None while it is to make none; apart: whether it stands apart; outvoted: it is to stand apart, and why."""

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        following: Following,
        table: Surveyed,
        keyring: KeyRing,
        clock: Clock,
        node_id: str,
        incarnation: int,
        copies: int | None,
        *,
        rank: Callable[[], int | None],
        apart: Callable[[], bool],
        outvoted: Callable[[str], None],
    ) -> None:
        self._link = link
        self._subjects = subjects
        self._following = following
        self._table = table
        self._keyring = keyring
        self._clock = clock
        self._node_id = node_id
        self._incarnation = incarnation
        self._rank = rank
        self._apart = apart
        self._outvoted = outvoted
        self._comparison = Comparison(node_id, copies)
        self._task: asyncio.Task[None] | None = None
        self._survey: Survey | None = None  # the last
        self._surveying: asyncio.Task[None] | None = None
        self._waited_since_ns = self._compared_ns = clock.monotonic_ns()
        self._interval_ns = INTERVAL_NS
        self.undecodable = 0
        self.differing: dict[str, int] = {}  # parts of the table, by other members; those without any are left out

    async def listen(self) -> None:
        """Hears the others."""
        await self._link.subscribe(self._subjects.reports, self._heard)

    def start(self) -> None:
        """Makes places, when it is this node's turn."""
        self._task = begin(self._make_places, "tokmesh-places")

    async def stop(self) -> None:
        """Ends it, and a survey under way."""
        await end(self._task, self._surveying)
        if self._survey is not None:
            self._survey.abandon()

    @property
    def compared_total(self) -> int:
        """Places at which this node's table was compared with another's."""
        return self._comparison.compared_total

    def age_ns(self, now_ns: int) -> int:
        """Since the last of those, or since the start."""
        return now_ns - self._compared_ns

    def placed(self, place: Place) -> None:
        """A place was just applied, and nothing after it."""
        if abs(self._clock.now_ms() - place.time_ms) > LATE_MS_MAX:
            return
        now_ns = self._clock.monotonic_ns()
        self._waited_since_ns = now_ns
        compared = self._comparison.compared_total
        verdict = self._comparison.judge(place.position, self._following.members)
        if self._comparison.compared_total > compared:
            self._compared_ns = now_ns
        self._tell(verdict)
        is_busy = self._surveying is not None and not self._surveying.done()
        if is_busy or not place.is_exact:
            return
        created_ns = self._following.created_ns
        hash_key = _hash_key(created_ns, place.position)
        halves = int.from_bytes(hash_key[:8], "little"), int.from_bytes(hash_key[8:], "little")
        try:
            survey = self._table.begin_survey(halves, place.time_ms + MARGIN_MS)
        except MemoryError:
            return
        self._survey = survey
        work = self._take(survey, KeySurvey(self._keyring, hash_key), place.position, created_ns, self._following.held)
        self._surveying = asyncio.get_running_loop().create_task(work, name="tokmesh-survey")

    def _tell(self, verdict: Verdict) -> None:
        for node_id in sorted(verdict.differing.keys() - self.differing.keys()):
            keys = node_id in verdict.keys
            extra = {"code": "TM-CLST-5050", "node_id": node_id, "shards": verdict.differing[node_id] - keys, "keys": keys}
            logger.error("the tables of two nodes differ: this one's and another's", extra=extra)
        for node_id in sorted(self.differing.keys() - verdict.differing.keys()):
            logger.info("the table of a node does not differ from this one's any more", extra={"node_id": node_id})
        self.differing = verdict.differing
        if self._node_id in verdict.outvoted and not self._apart():
            self._outvoted("the table of this node differs from those of a majority of the nodes")

    async def _take(self, survey: Survey, keys: KeySurvey, position: int, created_ns: int, held: int) -> None:
        sums, spent_s = await _in_steps(lambda: survey.step(STEP_ENTRIES))
        keys_sum, keys_spent_s = await _in_steps(lambda: keys.step(STEP_KEYS))
        self._interval_ns = max(INTERVAL_NS, round((spent_s + keys_spent_s) * 1e9 / SHARE_MAX))
        report = Report(self._node_id, created_ns, position, self._apart(), held, (*sums, keys_sum))
        self._comparison.hear(report)
        try:
            await self._link.publish(self._subjects.reports, encode_report(report))
        except LinkDown as error:
            logger.debug("a report was not sent", extra={"reason": str(error)})

    async def _heard(self, message: Msg) -> None:
        try:
            report = decode_report(message.data)
        except ReportError:
            self.undecodable += 1
            return
        if report.created_ns == self._following.created_ns and report.node_id != self._node_id:
            self._comparison.hear(report)

    async def _make_places(self) -> None:
        while True:  # ends by cancellation
            await asyncio.sleep(TICK_S)
            rank = self._rank()
            now_ns = self._clock.monotonic_ns()
            if rank is None or now_ns - self._waited_since_ns < self._interval_ns * (rank + 1):
                continue
            self._waited_since_ns = now_ns
            record = PlaceStated(self._clock.now_ms())
            payload = encode_aside(self._node_id, self._incarnation, record.encode())
            try:
                await self._link.publish(self._subjects.place, payload, headers=lifetime(PLACE_TTL_MS))
            except LinkDown as error:
                logger.debug("no place was made", extra={"reason": str(error)})


async def _in_steps(step: Callable[[], T | None]) -> tuple[T, float]:
    """What the last step gives, and the processor time of all. Each looks at more, of as much as there was."""
    spent_s = 0.0
    while True:
        began_s, began_cpu_s = time.perf_counter(), time.thread_time()
        found = step()
        step_s = time.perf_counter() - began_s
        spent_s += time.thread_time() - began_cpu_s
        if found is not None:
            return found, spent_s
        await asyncio.sleep(max(PAUSE_MIN_S, step_s * PAUSE_SHARE))


def _hash_key(created_ns: int, position: int) -> bytes:
    """Of the survey at that place, the same on all nodes: 16 bytes."""
    return blake2b(f"{created_ns}:{position}".encode(), digest_size=16).digest()
