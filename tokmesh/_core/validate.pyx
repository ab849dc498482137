"""Is this token good? From the token's text to a verdict, and to the JSON that says it.

One definition for the hot path, the general handler and batches: the form of a token, its SHA-256, the table's verdict, the
counters. Nothing here allocates per token or remembers a verdict.
"""

from tokmesh._core.digest import sha256_of_text
from tokmesh._core.encoding import is_token_text
from tokmesh.errors import ERRORS

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memcpy

from tokmesh._core.counters cimport VALIDATE_INVALID, VALIDATE_VALID, CounterBlock
from tokmesh._core.digest cimport tm_sha256, tm_sha256_has_shani
from tokmesh._core.encoding cimport TOKEN_SIZE, is_token
from tokmesh._core.layout cimport SESSION_JSON_BYTES_MAX, SHARD_COUNT
from tokmesh._core.response cimport OutBuffer
from tokmesh._core.table cimport VERDICT_BUSY, VERDICT_ELSEWHERE, VERDICT_VALID, Table


class TableBusy(Exception):
    """The table could not answer: a writer stopped half-way. Never a no."""


class TokensElsewhere(Exception):
    """No verdict yet: these tokens, by their hashes, are of shards that the table does not hold. Whoever does is to be asked."""

    def __init__(self, hashes):
        self.hashes = hashes


# A body `{"token":"<token>"}` without white space is recognised in place.
cdef const char* CANONICAL_OPEN = b'{"token":"'
cdef enum:
    CANONICAL_OPEN_SIZE = 10
    CANONICAL_SIZE = 60      # open, token, '"}'


cdef const char* canonical_token(const char* body, Py_ssize_t size) noexcept nogil:
    """Where the token starts in a canonical validate body, or NULL. Its form is still to be checked."""
    if size != CANONICAL_SIZE or memcmp(body, CANONICAL_OPEN, CANONICAL_OPEN_SIZE) != 0:
        return NULL
    if body[size - 2] != 34 or body[size - 1] != 125:
        return NULL
    return body + CANONICAL_OPEN_SIZE


def _refusal_json(code: str) -> bytes:
    return b'{"valid":false,"error":{"code":"%b","message":"%b"}}' % (code.encode("ascii"), ERRORS[code].message.encode("ascii"))


cdef class Validator:
    """Verdicts from `table`, counted in `counters` as valid or invalid."""

    def __init__(self, Table table not None, CounterBlock counters not None):
        self.table = table
        self.counters = counters
        self._shani = tm_sha256_has_shani()
        self._batch = OutBuffer()
        # by verdict (VALID has none), the malformed one last
        self._invalid_json = (b"", *map(_refusal_json, ("TM-TOKN-4010", "TM-TOKN-4011", "TM-TOKN-4012", "TM-TOKN-4000")))

    cdef int check(self, const char* token, int64_t now_ms, bint touch) noexcept nogil:
        """The table.Verdict on a well-formed token. VALID leaves the session's JSON in `session`, `session_size` bytes."""
        cdef uint8_t digest[32]
        cdef int verdict
        tm_sha256(<const uint8_t*>token, TOKEN_SIZE, digest, self._shani)
        verdict = self.table.check_token(digest, now_ms, self.session, &self.session_size, now_ms if touch else 0)
        if verdict == VERDICT_VALID:
            self.counters.add(VALIDATE_VALID, 1)
        elif verdict != VERDICT_BUSY and verdict != VERDICT_ELSEWHERE:
            self.counters.add(VALIDATE_INVALID, 1)
        return verdict

    cdef bytes refusal_json(self, int verdict):
        return self._invalid_json[4 if verdict == VERDICT_MALFORMED else verdict]

    cdef int _put_verdict(self, object token, int64_t now_ms, bint touch, dict told) except? -2:
        cdef Py_ssize_t size = 0
        cdef const char* text
        cdef int verdict = VERDICT_MALFORMED
        if (<str?>token).isascii():
            text = PyUnicode_AsUTF8AndSize(token, &size)
            if is_token(text, size):
                verdict = self.check(text, now_ms, touch)
        if verdict == VERDICT_ELSEWHERE:
            verdict = self._take_told(token, told)
        if verdict == VERDICT_BUSY:
            raise TableBusy()
        if verdict == VERDICT_VALID:
            self._batch.put(b'{"valid":true,"session":', 24)
            self._batch.put(self.session, self.session_size)
            self._batch.put(b"}", 1)
        else:
            self._batch.put_bytes(self.refusal_json(verdict))
        return verdict

    cdef int _take_told(self, str token, dict told) except? -2:
        # As `check`, of what another node has said.
        hashed = sha256_of_text(token)
        if told is None or hashed not in told:
            raise TokensElsewhere([hashed])
        cdef int verdict
        cdef bytes session
        verdict, session = told[hashed]
        if verdict == VERDICT_VALID:
            if PyBytes_GET_SIZE(session) > SESSION_JSON_BYTES_MAX:
                raise ValueError("more than a session has")
            self.session_size = PyBytes_GET_SIZE(session)
            memcpy(self.session, PyBytes_AS_STRING(session), self.session_size)
            self.counters.add(VALIDATE_VALID, 1)
        elif verdict != VERDICT_BUSY:
            self.counters.add(VALIDATE_INVALID, 1)
        return verdict

    cdef list _elsewhere(self, list tokens, dict told):
        # Hashes of the tokens that nothing is known of; nothing is counted.
        cdef list missing = []
        for token in tokens:
            if is_token_text(token):
                hashed = sha256_of_text(token)
                if not (self.table.held_shards >> (<bytes>hashed)[31] % SHARD_COUNT) & 1 and (told is None or hashed not in told):
                    missing.append(hashed)
        return missing

    def validate_one(self, str token not None, int64_t now_ms, bint touch, dict told=None) -> bytes | None:
        """JSON `{"valid":…}` for one token, or None when it is malformed. told: verdicts of others and sessions, by hash.

        Raises TableBusy, TokensElsewhere."""
        self._batch.size = 0
        verdict = self._put_verdict(token, now_ms, touch, told)
        answer = self._batch.take()
        return None if verdict == VERDICT_MALFORMED else answer

    def validate_batch(self, list tokens not None, int64_t now_ms, bint touch, dict told=None) -> bytes:
        """JSON `{"results":[…]}` with a verdict a token, in order; a malformed one is a verdict here, counted as invalid.

        tokens: str only (TypeError otherwise). told: as above. Raises TableBusy, and then answers for none; TokensElsewhere, with
        all of them, before any is looked at.
        """
        cdef bint first = True
        if ~self.table.held_shards:
            missing = self._elsewhere(tokens, told)
            if missing:
                raise TokensElsewhere(missing)
        self._batch.size = 0
        self._batch.put(b'{"results":[', 12)
        for token in tokens:
            if not first:
                self._batch.put(b",", 1)
            first = False
            if self._put_verdict(token, now_ms, touch, told) == VERDICT_MALFORMED:
                self.counters.add(VALIDATE_INVALID, 1)
        self._batch.put(b"]}", 2)
        return self._batch.take()
