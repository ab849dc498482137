"""Who is calling: an API key as the wire path sees it, and the grant that a verified credential gives.

An ApiKey is shared by everything that speaks for that key; changing it bumps its generation, which makes every Grant handed
out before stale at its next use. A Grant is checked on every request and never remembers a decision, only that a secret was
verified, until when. Neither holds a secret.
"""

from libc.stdint cimport int64_t

ROLES = {"metrics": ROLE_METRICS, "validator": ROLE_VALIDATOR, "issuer": ROLE_ISSUER, "admin": ROLE_ADMIN}


cdef class ApiKey:
    """State of one API key.

    role: a name of ROLES. networks: tuple of ipaddress networks the caller must come from, None for any.
    rate_per_second: requests a second with a burst of as many (0: unlimited). expires_at_ms: Unix ms, 0 for never.
    """

    def __init__(self, str key_id, str role, *, bint active=True, int64_t expires_at_ms=0, networks=None,
                 double rate_per_second=0.0):
        self.key_id = key_id
        self.role_name = role
        self.role = ROLES[role]
        self.active = active
        self.expires_at_ms = expires_at_ms
        self.networks = networks
        self.rate_per_second = rate_per_second
        self._rate_tokens = max(rate_per_second, 1.0)
        self._rate_filled_ms = 0
        self.generation = 1

    def set_active(self, bint active) -> None:
        """Enables or disables the key; every grant given so far becomes stale."""
        self.active = active
        self.generation += 1

    cdef bint take(self, int64_t now_ms) noexcept nogil:
        # Token bucket, one token a request; the clock never goes back (clock.pyx).
        if self.rate_per_second <= 0:
            return True
        cdef double capacity = self.rate_per_second if self.rate_per_second > 1.0 else 1.0
        if self._rate_filled_ms != 0:
            self._rate_tokens += (now_ms - self._rate_filled_ms) * self.rate_per_second / 1000.0
            if self._rate_tokens > capacity:
                self._rate_tokens = capacity
        self._rate_filled_ms = now_ms
        if self._rate_tokens < 1.0:
            return False
        self._rate_tokens -= 1.0
        return True


cdef class Grant:
    """Proof that a credential of `api_key` was verified; good until `verified_until_ms` or the key's next change."""

    def __init__(self, ApiKey api_key not None, int64_t verified_until_ms):
        self.api_key = api_key
        self.generation = api_key.generation
        self.verified_until_ms = verified_until_ms

    cdef int state(self, int64_t now_ms) noexcept nogil:
        if not self.api_key.active:
            return KEY_DISABLED
        if self.generation != self.api_key.generation or now_ms >= self.verified_until_ms:
            return GRANT_STALE
        if self.api_key.expires_at_ms != 0 and now_ms >= self.api_key.expires_at_ms:
            return KEY_EXPIRED
        return GRANTED

    cdef int check(self, int64_t now_ms) noexcept nogil:
        cdef int state = self.state(now_ms)
        if state == GRANTED and not self.api_key.take(now_ms):
            return KEY_RATE_LIMITED
        return state

    def refusal(self, int64_t now_ms) -> int:
        """GRANTED or why not, as of `now_ms`; takes one request from the key's rate."""
        return self.check(now_ms)
