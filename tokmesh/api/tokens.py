"""Handlers of /tokens: verdicts, singly and by the thousand, and rotation.

`validate` serves what the wire path does not recognise in place, with the same verdicts: a definite no is 200 and
`{"valid":false,"error":…}`, a malformed token is 400 TM-TOKN-4000, and whatever stops an answer is a 503, never a no.
In a batch, malformed is a verdict like the others. Every token asked about moves exactly one VALIDATE_* counter; a
request that is refused before any token is read moves VALIDATE_ERROR once.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from tokmesh import ids
from tokmesh._core.counters import Counter, CounterBlock
from tokmesh.api.answer import Reply, Request
from tokmesh.api.body import BodySpec
from tokmesh.api.query import NO_QUERY
from tokmesh.errors import ERRORS, ApiError
from tokmesh.sessions import Sessions

BATCH_TOKENS_MAX: Final = 1000

# Tokens and `touch` → the JSON array of their results in order; moves the VALIDATE_* counters itself.
ValidateBatch = Callable[[list[str], bool], bytes]

_VALIDATE: Final = BodySpec(required={"token": str}, optional={"touch": bool})
_BATCH: Final = BodySpec(required={"tokens": list}, optional={"touch": bool})
_ROTATE: Final = BodySpec(required={"token": str}, optional={"grace_seconds": int})


def refused(code: str) -> dict[str, Any]:
    """The data of a definite no."""
    return {"valid": False, "error": {"code": code, "message": ERRORS[code].message}}


_REFUSED_JSON: Final = {
    code: orjson.dumps(refused(code)) for code in ("TM-TOKN-4000", "TM-TOKN-4010", "TM-TOKN-4011", "TM-TOKN-4012")
}


class TokenHandlers:
    """counters: where VALIDATE_* are. batch: see ValidateBatch; None: token by token through `sessions`."""

    def __init__(self, sessions: Sessions, counters: CounterBlock, batch: ValidateBatch | None = None) -> None:
        self._sessions = sessions
        self._counters = counters
        self._batch = batch or self._validate_each

    async def validate(self, request: Request) -> Reply:
        """POST /tokens/validate."""
        try:
            NO_QUERY.parse(request)
            fields = _VALIDATE.parse(request.body)
        except ApiError:
            self._counters.increment(Counter.VALIDATE_ERROR)
            raise
        token = fields["token"]
        if not ids.is_token(token):
            self._counters.increment(Counter.VALIDATE_INVALID)
            raise ApiError("TM-TOKN-4000", {"field": "token"})
        code, session_json = self._ask(token, fields.get("touch", False))
        if code is not None:
            return refused(code)
        return {"valid": True, "session": orjson.Fragment(session_json)}

    async def validate_batch(self, request: Request) -> Reply:
        """POST /tokens/validate/batch: results in the order of `tokens`, of which there are 0 to 1000."""
        try:
            NO_QUERY.parse(request)
            fields = _BATCH.parse(request.body)
            tokens = fields["tokens"]
            if len(tokens) > BATCH_TOKENS_MAX:
                raise ApiError("TM-ARG-1001", {"field": "tokens", "maximum": BATCH_TOKENS_MAX})
        except ApiError:
            self._counters.increment(Counter.VALIDATE_ERROR)
            raise
        return {"results": orjson.Fragment(self._batch(tokens, fields.get("touch", False)))}

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

    def _ask(self, token: str, touch: bool) -> tuple[str | None, bytes]:
        """(None, session JSON) for a good token, (code, b"") for a no; moves one counter. Raises TM-SYS-5030."""
        try:
            verdict = self._sessions.validate(ids.token_hash(token), touch)
        except ApiError:
            self._counters.increment(Counter.VALIDATE_ERROR)
            raise
        valid = verdict.code is None
        self._counters.increment(Counter.VALIDATE_VALID if valid else Counter.VALIDATE_INVALID)
        return verdict.code, verdict.session_json

    def _validate_each(self, tokens: list[str], touch: bool) -> bytes:
        """A ValidateBatch over `sessions`."""
        results: list[bytes] = []
        for token in tokens:
            if ids.is_token(token):
                code, session_json = self._ask(token, touch)
            else:
                self._counters.increment(Counter.VALIDATE_INVALID)
                code, session_json = "TM-TOKN-4000", b""
            results.append(b'{"valid":true,"session":%b}' % session_json if code is None else _REFUSED_JSON[code])
        return b"[%b]" % b",".join(results)
