"""Answering other nodes about sessions that this one holds: it does for them what it does for its own clients.

Nothing is said about shards that are not held here, nor while this node may not answer. What only reads is answered in the turn in
which it is asked; what changes something, or takes longer, runs beside others, TASKS_MAX at most, and beyond those it is refused.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

from nats.aio.msg import Msg

from tokmesh._core.table import SESSION_JSON_BYTES_MAX
from tokmesh.cluster.asking import Placement
from tokmesh.cluster.ending import end
from tokmesh.cluster.link import Link, LinkDown
from tokmesh.cluster.question import (
    ANSWER_BYTES_MAX,
    KEYS_MAX,
    READS,
    Answer,
    Operation,
    Question,
    QuestionError,
    Status,
    decode_question,
    encode_answer,
    refusal,
)
from tokmesh.cluster.subjects import INBOX_PREFIX
from tokmesh.errors import ApiError
from tokmesh.sessions import Revoked, SessionFilter, Sessions

OUTCOMES: Final = ("answered", "refused", "elsewhere", "stale")
TASKS_MAX: Final = 1024
DRAIN_S: Final = 3.0  # longer than a statement may take to be published

# The request that another node asks for, while that is worked on; "" outside of any.
asked_request_id: ContextVar[str] = ContextVar("asked_request_id", default="")

logger = logging.getLogger("tokmesh.cluster")


class Answering:
    """subject: on which this node is asked. is_fresh: whether it may answer now."""

    def __init__(
        self, link: Link, subject: str, sessions: Sessions, placement: Placement, is_fresh: Callable[[], bool]
    ) -> None:
        self._link = link
        self._subject = subject
        self._sessions = sessions
        self._placement = placement
        self._is_fresh = is_fresh
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self._work: dict[Operation, Callable[[Question], Awaitable[Answer]]] = {
            Operation.VERDICTS: self._verdicts,
            Operation.GET: self._get,
            Operation.TOUCH: self._touch,
            Operation.PLACES: self._places,
            Operation.CREATE: self._create,
            Operation.RENEW: self._renew,
            Operation.UPDATE: self._update,
            Operation.ROTATE: self._rotate,
            Operation.REVOKE: self._revoke,
            Operation.REVOKE_USER: self._revoke_user,
            Operation.MATCHES: self._matches,
            Operation.SHOW: self._show,
        }
        self.undecodable = 0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)  # of what others asked

    async def listen(self) -> None:
        """Answers from now on."""
        await self._link.subscribe(self._subject, self._asked)

    async def drain(self) -> None:
        """Begins nothing more, whoever asks is told to ask another; what is under way has DRAIN_S to come to its answer."""
        self._is_draining = True
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=DRAIN_S)

    async def stop(self) -> None:
        """What is under way ends; nobody is told what came of it. Statements that it waits for must have an outcome by now."""
        await end(*self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    async def _asked(self, message: Msg) -> None:
        try:
            if not message.reply.startswith(f"{INBOX_PREFIX}."):  # a node's own rights reach further
                raise QuestionError("the answer is to go elsewhere than to a node")
            question = decode_question(message.data)
        except QuestionError as error:
            self.undecodable += 1
            logger.debug("what was asked could not be read", extra={"reason": str(error)})
            return
        if question.operation in READS and question.operation != Operation.MATCHES:
            await self._answer(question, message.reply)
        elif len(self._tasks) >= TASKS_MAX:
            await self._tell(refusal(ApiError("TM-SYS-5030", {"reason": "holder_busy"}, retry_after_s=1)), message.reply)
        else:
            task = asyncio.get_running_loop().create_task(self._answer(question, message.reply), name="tokmesh-answer")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: Question, reply: str) -> None:
        mark = asked_request_id.set(question.request_id)
        try:
            answer = await self._do(question)
        finally:
            asked_request_id.reset(mark)
        await self._tell(answer, reply)

    async def _do(self, question: Question) -> Answer:
        if self._is_draining or not self._is_fresh():
            return Answer(Status.STALE, {}, [])
        held = self._placement.held
        if question.shards & ~held:
            return Answer(Status.ELSEWHERE, {"held": held}, [])
        try:
            return await self._work[question.operation](question)
        except ApiError as error:
            return refusal(error)
        except Exception:
            logger.exception("unexpected: what another node asked for failed")
            return refusal(ApiError("TM-SYS-5000"))

    async def _tell(self, answer: Answer, reply: str) -> None:
        self.outcomes[OUTCOMES[answer.status]] += 1
        try:
            await self._link.publish(reply, encode_answer(answer))
        except LinkDown as error:
            logger.debug("an answer was not sent", extra={"reason": str(error)})

    # ── operations ──

    async def _verdicts(self, question: Question) -> Answer:
        """Of the first tokens only, where sessions are so large that no more go into an answer."""
        hashes, touch = question.fields["hashes"], question.fields["touch"]
        verdicts: list[int] = []
        pieces = _Pieces()
        for hashed in hashes:
            if pieces.are_full:
                break
            [(verdict, session)] = await self._sessions.verdicts((hashed,), touch)
            verdicts.append(verdict)
            if session:
                pieces.add(session)
        return _done({"verdicts": verdicts}, *pieces.all)

    async def _get(self, question: Question) -> Answer:
        return _done({}, await self._sessions.get(**question.fields))

    async def _touch(self, question: Question) -> Answer:
        return _done({}, await self._sessions.touch(**question.fields))

    async def _places(self, question: Question) -> Answer:
        return _done(self._sessions.places(question.fields["user_id"], question.shards)._asdict())

    async def _create(self, question: Question) -> Answer:
        created = await self._sessions.create(**question.fields)
        return _done({"session_id": created.session_id, "expires_at": created.expires_at})

    async def _renew(self, question: Question) -> Answer:
        return _done({"expires_at": await self._sessions.renew(**question.fields)})

    async def _update(self, question: Question) -> Answer:
        return _done({"version": await self._sessions.update(**question.fields)})

    async def _rotate(self, question: Question) -> Answer:
        expires_at_ms, old_valid_until_ms = await self._sessions.rotate_to(**question.fields)
        return _done({"expires_at": expires_at_ms, "old_valid_until": old_valid_until_ms})

    async def _revoke(self, question: Question) -> Answer:
        return _revoked(await self._sessions.revoke(**question.fields))

    async def _revoke_user(self, question: Question) -> Answer:
        return _revoked(await self._sessions.revoke_user(**question.fields, shards=question.shards))

    async def _matches(self, question: Question) -> Answer:
        fields = dict(question.fields)
        window, after, count = fields.pop("window"), fields.pop("after", None), min(fields.pop("count"), KEYS_MAX)
        wanted = SessionFilter(**fields)
        return _done((await self._sessions.query.matches(wanted, window, after, count, question.shards))._asdict())

    async def _show(self, question: Question) -> Answer:
        """The first of them only, as with verdicts."""
        pieces = _Pieces()
        for session_id in question.fields["ids"]:
            if pieces.are_full:
                break
            [session] = self._sessions.query.show((session_id,))
            pieces.add(session)
        return _done({}, *pieces.all)


class _Pieces:
    """Of one answer, JSON of sessions. are_full: there may be no room for one more."""

    def __init__(self) -> None:
        self.all: list[bytes] = []
        self._room_bytes = ANSWER_BYTES_MAX - SESSION_JSON_BYTES_MAX

    @property
    def are_full(self) -> bool:
        return self._room_bytes < 0

    def add(self, session: bytes) -> None:
        self.all.append(session)
        self._room_bytes -= len(session) + 16


def _done(facts: dict[str, Any], *pieces: bytes) -> Answer:
    return Answer(Status.DONE, facts, list(pieces))


def _revoked(revoked: Revoked) -> Answer:
    ended, reached = revoked
    return _done({"ended": ended, **({} if reached is None else reached._asdict())})
