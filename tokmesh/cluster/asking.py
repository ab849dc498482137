"""Asking other nodes about sessions that they hold, until all of it is answered or the time for it is over.

Each node is asked for some shards. That it does not hold all of them, may not answer now, or is not there, is told at once:
nothing was done. It is asked for those that it does hold, and the next holders for the others. One that says nothing may have
done what it was asked: what only reads is asked of another holder, what changes something has an unknown outcome. Invariants:
whoever asks is told, by the deadline; no node is asked twice for a shard that it did not answer for; nothing that was read is told
when this node may not answer any more, as when it was suspended while it waited.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from nats.aio.msg import Msg

from tokmesh.cluster.link import Link, LinkDown
from tokmesh.cluster.question import (
    RAWS_MAX,
    READS,
    Answer,
    Operation,
    Question,
    QuestionError,
    Status,
    decode_answer,
    encode_question,
    error_of,
)
from tokmesh.cluster.reach import SLACK_NS
from tokmesh.cluster.subjects import Subjects
from tokmesh.errors import ApiError
from tokmesh.ids import shard_of, shards_in

# What was asked came to: an answer; an error for an answer; nothing done, as the node does not hold the shards, may not answer, or
# is not there; no answer in time; one that is none.
OUTCOMES: Final = ("answered", "refused", "elsewhere", "stale", "absent", "silent", "undecodable")
READ_S: Final = 0.9 * SLACK_NS / 1e9  # what a node told just before it was fenced has left by the time that reach.py allows for it
FIRST_SHARE: Final = 1 / 3  # of the time, for the first node that is asked to read, where there is another
NO_RESPONDERS: Final = "503"

T = TypeVar("T")

logger = logging.getLogger("tokmesh.cluster")

_BY_STATUS: Final = {
    Status.DONE: "answered",
    Status.REFUSED: "refused",
    Status.ELSEWHERE: "elsewhere",
    Status.STALE: "stale",
}
_NOT_DONE: Final = frozenset(("elsewhere", "stale", "absent"))
_NOTHING: Final[Mapping[str, int]] = {}


class Placement(Protocol):
    """Who holds which shard."""

    @property
    def all_here(self) -> bool:
        """This node holds every shard: nothing is ever asked of others."""

    @property
    def held(self) -> int:
        """Shards (bits) that this node holds, and may answer for."""

    def holds(self, shard: int) -> bool:
        """Whether that is one of them."""

    def holders(self, shard: int) -> Sequence[str]:
        """Other nodes in reach that do, the best first."""

    def cover(self) -> dict[str, int] | None:
        """By node the shards (bits) to ask it for: every shard once, this node for all that it holds. None: one has no holder in
        reach."""


class Ends(Protocol):
    """A question that is traced."""

    headers: dict[str, str]

    def ended(self, outcome: str) -> None: ...


class Tracing(Protocol):
    def current(self) -> Any:
        """The span of what is being done at this moment; None when it is not traced."""

    def begin(self, operation: str, parent: Any) -> Ends | None:
        """A question under that span; None: it is not traced."""


class Caller(NamedTuple):
    """On whose behalf questions are asked: the id of a request, or "", and its span, if it is traced."""

    request_id: str
    span: Any


class Told(NamedTuple):
    """What a node has answered about shards (bits)."""

    node_id: str
    shards: int
    answer: Answer


class Asking:
    """Asks from `start` to `stop`. request_id: of the request whose handler runs, or ""; may_answer: whether this node may say
    anything about sessions now; tracing: told of each question."""

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        placement: Placement,
        request_id: Callable[[], str],
        may_answer: Callable[[], bool],
    ) -> None:
        self._link = link
        self._subjects = subjects
        self._placement = placement
        self._request_id = request_id
        self._may_answer = may_answer
        self._inbox = ""
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Msg | None]] = {}
        self.tracing: Tracing | None = None
        self.outcomes = dict.fromkeys(OUTCOMES, 0)  # of questions

    async def start(self) -> None:
        """When there was a connection."""
        self._inbox = self._link.new_inbox()
        await self._link.subscribe(f"{self._inbox}.*", self._answered)

    def stop(self) -> None:
        """Whoever still waits hears nothing more."""
        for future in self._waiting.values():
            _resolve(future, None)

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(
        self,
        operation: Operation,
        parts: Mapping[str, int],
        fields_of: Callable[[int], Mapping[str, Any]],
        deadline_s: float,
        *,
        caller: Caller | None = None,
        moved: ApiError | None = None,
    ) -> list[Told]:
        """Asks each node for its shards (bits), all at once. fields_of: those of a question for these shards. caller: if this runs
        in a task of its own. moved: raised where a node does not hold them any more, for what no other can tell.

        Raises ApiError: what a node refuses, and TM-CLST-5030, also when others have done their part then."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + deadline_s
        caller = caller or self.caller()
        answered: list[Told] = []
        vain: dict[str, int] = {}  # by node the shards (bits) for which it was asked in vain
        reason = "no_holder"
        while parts:
            left_s = until_s - loop.time()
            if left_s <= 0:
                raise no_answer("holder_silent")
            if operation in READS and not vain and self._others(parts):
                left_s *= FIRST_SHARE
            sent = []
            for node_id, shards in parts.items():
                payload = encode_question(Question(operation, shards, caller.request_id, fields_of(shards)))
                traced = None if self.tracing is None else self.tracing.begin(operation.name.lower(), caller.span)
                sent.append(self._once(node_id, operation, payload, left_s, traced))
            answers = [await sent[0]] if len(sent) == 1 else await asyncio.gather(*sent)
            unanswered = 0
            error: ApiError | None = None
            for (node_id, shards), (outcome, answer) in zip(parts.items(), answers, strict=True):
                if outcome == "answered":
                    assert answer is not None
                    answered.append(Told(node_id, shards, answer))
                elif outcome == "refused":
                    assert answer is not None
                    error = error or error_of(answer)
                elif outcome in _NOT_DONE or operation in READS:
                    if moved is not None:
                        error = error or (moved if outcome == "elsewhere" else no_answer("holder_silent"))
                    unanswered |= shards
                    vain[node_id] = vain.get(node_id, 0) | _in_vain(shards, answer)
                    if outcome not in _NOT_DONE:
                        reason = "holder_silent"
                else:
                    error = no_answer("holder_silent", unknown=True)
            if error is not None:
                raise error
            parts = self.holders_of(unanswered, vain, reason)
        if operation in READS and not self._may_answer():
            raise no_answer("stale")
        return answered

    async def ask_of_many(
        self,
        operation: Operation,
        raws: Sequence[bytes],
        fields_of: Callable[[list[bytes]], Mapping[str, Any]],
        read: Callable[[Answer], Sequence[T]],
        deadline_s: float,
    ) -> dict[bytes, T]:
        """What `read` finds in the answers about each of those ids or hashes but those that are held here when this returns. An
        answer is about the first of those in its question, at least one, so that it is bounded; the others are asked about anew."""
        until_s = asyncio.get_running_loop().time() + deadline_s
        found: dict[bytes, T] = {}
        by_shard: dict[int, list[bytes]] = {}
        for raw in raws:
            by_shard.setdefault(shard_of(raw), []).append(raw)

        def of(shards: int) -> list[bytes]:
            left = (raw for shard, raws in by_shard.items() if shards >> shard & 1 for raw in raws if raw not in found)
            return list(islice(left, RAWS_MAX))

        while shards := sum(1 << shard for shard in by_shard if not self._placement.holds(shard) and of(1 << shard)):
            left_s = until_s - asyncio.get_running_loop().time()
            asked = self.ask(operation, self.holders_of(shards), lambda shards: fields_of(of(shards)), left_s)
            for told in await asked:
                found.update(zip(of(told.shards), read(told.answer), strict=False))
        return found

    def caller(self) -> Caller:
        """Of this moment."""
        return Caller(self._request_id(), None if self.tracing is None else self.tracing.current())

    def holders_of(self, shards: int, vain: Mapping[str, int] = _NOTHING, reason: str = "no_holder") -> dict[str, int]:
        """By node the shards (bits) to ask it for, of those, none for which it was asked in vain. Raises TM-CLST-5030 where there
        is nobody."""
        parts: dict[str, int] = {}
        for shard in shards_in(shards):
            holders = self._placement.holders(shard)
            node_id = next((each for each in holders if not vain.get(each, 0) >> shard & 1), None)
            if node_id is None:
                raise no_answer(reason)
            parts[node_id] = parts.get(node_id, 0) | 1 << shard
        return parts

    def _others(self, parts: Mapping[str, int]) -> bool:
        """Whether there are others who could be asked for all of it."""
        try:
            return all(self.holders_of(shards, {node_id: shards}) for node_id, shards in parts.items())
        except ApiError:
            return False

    async def _once(
        self, node_id: str, operation: Operation, payload: bytes, timeout_s: float, traced: Ends | None
    ) -> tuple[str, Answer | None]:
        loop = asyncio.get_running_loop()
        self._number += 1
        number = self._number
        future = self._waiting[number] = loop.create_future()
        timer = loop.call_later(timeout_s, _resolve, future, None)
        outcome, answer = "silent", None
        try:
            reply = f"{self._inbox}.{number}"
            headers = None if traced is None else traced.headers
            await self._link.publish(self._subjects.questions(node_id), payload, reply, headers)
            message = await future
            if message is not None:
                outcome, answer = _read(message, operation)
        except LinkDown as error:
            outcome = "absent"  # nothing has gone out
            logger.debug("a node was not asked", extra={"node_id": node_id, "reason": str(error)})
        finally:
            timer.cancel()
            del self._waiting[number]
            self.outcomes[outcome] += 1
            if traced is not None:
                traced.ended(outcome)
        return outcome, answer

    async def _answered(self, message: Msg) -> None:
        number = message.subject.rpartition(".")[2]
        future = self._waiting.get(int(number)) if number.isdecimal() else None
        if future is not None:  # else it comes too late
            _resolve(future, message)


def cover_of(placement: Placement) -> dict[str, int]:
    """By node the shards to ask it for, every shard once. Raises TM-CLST-5030 where that cannot be had."""
    parts = placement.cover()
    if parts is None:
        raise no_answer("no_holder")
    return dict(parts)


def no_answer(reason: str, *, unknown: bool = False) -> ApiError:
    """Nobody in reach holds what is asked for (no_holder), whoever does has not answered in time (holder_silent), or this node may
    not answer any more (stale). unknown: what was to be changed may have been, and may still be."""
    details = {"reason": reason, "outcome": "unknown"} if unknown else {"reason": reason}
    return ApiError("TM-CLST-5030", details, retry_after_s=1)


def _read(message: Msg, operation: Operation) -> tuple[str, Answer | None]:
    if not message.data and (message.headers or {}).get("Status") == NO_RESPONDERS:
        return "absent", None
    try:
        answer = decode_answer(message.data, operation)
        if answer.status == Status.REFUSED:
            error_of(answer)
    except QuestionError as error:
        logger.warning("a node answered with something else", extra={"reason": str(error)})
        return "undecodable", None
    return _BY_STATUS[answer.status], answer


def _in_vain(shards: int, answer: Answer | None) -> int:
    """Of the shards (bits) that a node was asked for and has not answered about, those that it is not to be asked for again."""
    gone = shards if answer is None else shards & ~answer.facts.get("held", 0)
    return gone or shards


def _resolve(future: "asyncio.Future[Msg | None]", message: Msg | None) -> None:
    if not future.done():
        future.set_result(message)
