"""Is this token good? From the token's text to a verdict, and to the JSON that says it.

One definition for the hot path, the general handler and batches: the form of a token, its SHA-256, the table's verdict, the
counters. Nothing here allocates per token or remembers a verdict.
"""

from tokmesh.errors import ERRORS

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp

from tokmesh._core.counters cimport VALIDATE_INVALID, VALIDATE_VALID, CounterBlock
from tokmesh._core.digest cimport tm_sha256, tm_sha256_has_shani
from tokmesh._core.encoding cimport TOKEN_SIZE, is_token
from tokmesh._core.response cimport OutBuffer
from tokmesh._core.table cimport VERDICT_BUSY, VERDICT_VALID, Table


class TableBusy(Exception):
    """The table could not answer: a writer stopped half-way. Never a no."""


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
        elif verdict != VERDICT_BUSY:
            self.counters.add(VALIDATE_INVALID, 1)
        return verdict

    cdef bytes refusal_json(self, int verdict):
        return self._invalid_json[4 if verdict == VERDICT_MALFORMED else verdict]

    cdef int _put_verdict(self, object token, int64_t now_ms, bint touch) except? -2:
        cdef Py_ssize_t size = 0
        cdef const char* text
        cdef int verdict = VERDICT_MALFORMED
        if (<str?>token).isascii():
            text = PyUnicode_AsUTF8AndSize(token, &size)
            if is_token(text, size):
                verdict = self.check(text, now_ms, touch)
        if verdict == VERDICT_BUSY:
            raise TableBusy()
        if verdict == VERDICT_VALID:
            self._batch.put(b'{"valid":true,"session":', 24)
            self._batch.put(self.session, self.session_size)
            self._batch.put(b"}", 1)
        else:
            self._batch.put_bytes(self.refusal_json(verdict))
        return verdict

    def validate_one(self, str token not None, int64_t now_ms, bint touch) -> bytes | None:
        """JSON `{"valid":…}` for one token, or None when it is malformed. Raises TableBusy."""
        self._batch.size = 0
        verdict = self._put_verdict(token, now_ms, touch)
        answer = self._batch.take()
        return None if verdict == VERDICT_MALFORMED else answer

    def validate_batch(self, list tokens not None, int64_t now_ms, bint touch) -> bytes:
        """JSON `{"results":[…]}` with a verdict a token, in order; a malformed one is a verdict here, counted as invalid.

        tokens: str only (TypeError otherwise). Raises TableBusy, and then answers for none.
        """
        cdef bint first = True
        self._batch.size = 0
        self._batch.put(b'{"results":[', 12)
        for token in tokens:
            if not first:
                self._batch.put(b",", 1)
            first = False
            if self._put_verdict(token, now_ms, touch) == VERDICT_MALFORMED:
                self.counters.add(VALIDATE_INVALID, 1)
        self._batch.put(b"]}", 2)
        return self._batch.take()
