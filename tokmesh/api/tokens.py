"""Handlers of /tokens: verdicts, singly and by the thousand, and rotation.

`validate` serves what the wire path does not recognise in place, with the same verdicts: a definite no is 200 and
`{"valid":false,"error":…}`, a malformed token is 400 TM-TOKN-4000, and whatever stops an answer is a 503, never a no.
In a batch, malformed is a verdict like the others. Every token asked about moves one VALIDATE_* counter, a malformed
one VALIDATE_INVALID; a request that is refused before any token is looked at moves VALIDATE_ERROR once.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from tokmesh._core.clock import Clock
from tokmesh._core.counters import Counter, CounterBlock
from tokmesh._core.validate import TableBusy, TokensElsewhere, Validator
from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.query import NO_QUERY
from tokmesh.errors import ApiError
from tokmesh.sessions import Judged, SessionOperations

BATCH_TOKENS_MAX: Final = 1000

Given = TypeVar("Given", str, list[str])
Said = TypeVar("Said")

_VALIDATE: Final = BodySpec(required={"token": str}, optional={"touch": bool})
_BATCH: Final = BodySpec(required={"tokens": list}, optional={"touch": bool})
_ROTATE: Final = BodySpec(required={"token": str}, optional={"grace_seconds": int})


class TokenHandlers:
    """The routes of tokens. counters: where the VALIDATE_* counters are, those of `validator`."""

    def __init__(self, sessions: SessionOperations, validator: Validator, counters: CounterBlock, clock: Clock) -> None:
        self._sessions = sessions
        self._validator = validator
        self._counters = counters
        self._clock = clock

    async def validate(self, request: Request) -> Reply:
        """POST /tokens/validate."""
        try:
            NO_QUERY.parse(request)
            fields = _VALIDATE.parse(request.body)
            try:
                verdict = self._validator.validate_one(fields["token"], self._clock.now_ms(), fields.get("touch", False))
            except TokensElsewhere as away:
                verdict = await self._asked(self._validator.validate_one, fields["token"], fields.get("touch", False), away)
        except (ApiError, TableBusy) as refusal:
            raise self._no_answer(refusal) from None
        if verdict is None:
            self._counters.increment(Counter.VALIDATE_INVALID)
            raise ApiError("TM-TOKN-4000", {"field": "token"})
        return verdict

    async def validate_batch(self, request: Request) -> Reply:
        """POST /tokens/validate/batch: results in the order of `tokens`, of which there are 0 to 1000."""
        try:
            NO_QUERY.parse(request)
            fields = _BATCH.parse(request.body)
            tokens = fields["tokens"]
            if len(tokens) > BATCH_TOKENS_MAX:
                raise ApiError("TM-ARG-1001", {"field": "tokens", "maximum": BATCH_TOKENS_MAX})
            try:
                results = self._validator.validate_batch(tokens, self._clock.now_ms(), fields.get("touch", False))
            except TokensElsewhere as away:
                results = await self._asked(self._validator.validate_batch, tokens, fields.get("touch", False), away)
        except (ApiError, TableBusy) as refusal:
            raise self._no_answer(refusal) from None
        return results

    async def rotate(self, request: Request) -> Reply:
        """POST /tokens/rotate: a new token; the old one stays good for `grace_seconds`, 0 unless given."""
        NO_QUERY.parse(request)
        fields = _ROTATE.parse(request.body)
        rotated = await self._sessions.rotate(fields["token"], fields.get("grace_seconds", 0))
        return {
            "token": rotated.token,
            "expires_at": rotated.expires_at,
            "old_valid_until": rotated.old_valid_until,
        }

    async def _asked(
        self, judge: Callable[[Given, int, bool, dict[bytes, Judged]], Said], given: Given, touch: bool, away: TokensElsewhere
    ) -> Said:
        """What the validator says, with what others say of tokens that are not judged here."""
        told: dict[bytes, Judged] = {}
        while True:  # each time of more of them, should their shards leave this node meanwhile
            told.update(zip(away.hashes, await self._sessions.verdicts(away.hashes, touch), strict=True))
            try:
                return judge(given, self._clock.now_ms(), touch, told)
            except TokensElsewhere as more:
                away = more

    def _no_answer(self, refusal: ApiError | TableBusy) -> ApiError:
        """Counts a request that gets no verdict; the error that says so."""
        self._counters.increment(Counter.VALIDATE_ERROR)
        return refusal if isinstance(refusal, ApiError) else ApiError("TM-SYS-5030", {"reason": "table_busy"})
