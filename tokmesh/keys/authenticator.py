"""Who presents this credential: from `<key_id>:<secret>` to a Grant.

A caller without a secret must not be able to spend our CPU. So, in this order:

1. A verified credential is found by a keyed hash of the whole of it; the cache holds grants, never secrets or decisions.
2. A wrong secret is told by a BLAKE2b tag under the key's own salt, compared in constant time, before Argon2.
3. Only what passes both is verified by Argon2id, once for any number of requests that wait for the same credential, in a pool that
   answers 503 beyond its bound.

Whether a key is disabled or expired is told only to who has its secret. Every refusal moves one AUTH_* counter; what is granted
is counted by who uses the grant.
"""

import asyncio
import re
from collections import OrderedDict
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, Protocol

from tokmesh._core.clock import Clock
from tokmesh._core.counters import Counter, CounterBlock
from tokmesh._core.principal import ApiKey, Grant
from tokmesh.errors import ApiError
from tokmesh.ids import RandomSource
from tokmesh.keyring import KeyRing, StoredKey
from tokmesh.keys.argon2_pool import Argon2Pool, Argon2Settings

TAG_BYTES: Final = 32
SALT_BYTES: Final = 16
CREDENTIAL_BYTES_MAX: Final = 128
KEY_ID_BYTES: Final = 31
_CREDENTIAL: Final = re.compile(rb"([Tt][Mm][Aa][Kk]-[0-9A-Za-z]{26}):(tmas_[0-9A-Za-z]{43})")
_NO_SALT: Final = bytes(SALT_BYTES)
_NO_TAG: Final = bytes(TAG_BYTES)


class AuthSettings(Protocol):
    """`settings.security.auth` of the configuration."""

    @property
    def cache_ttl_ms(self) -> int: ...
    @property
    def cache_capacity(self) -> int: ...
    @property
    def argon2(self) -> Argon2Settings: ...


def secret_tag(salt: bytes, secret: bytes) -> bytes:
    """The prefilter's tag of an API secret: BLAKE2b-256 keyed with the key's 16-byte salt."""
    return blake2b(secret, key=salt, digest_size=TAG_BYTES).digest()


class Authenticator:
    """Verifies credentials against `keyring`. On the loop's thread; Argon2 runs in `pool` (its own when None)."""

    def __init__(
        self,
        keyring: KeyRing,
        settings: AuthSettings,
        clock: Clock,
        counters: CounterBlock,
        *,
        pool: Argon2Pool | None = None,
        random: RandomSource | None = None,
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._counters = counters
        self._cache_ttl_ms = settings.cache_ttl_ms
        self._cache_capacity = settings.cache_capacity
        self._pool = Argon2Pool(settings.argon2) if pool is None else pool
        self._cache_key = (RandomSource() if random is None else random).take(32)
        self._cache: OrderedDict[bytes, Grant] = OrderedDict()  # oldest use first, at most cache_capacity
        self._flights: dict[bytes, asyncio.Future[bool]] = {}  # bounded by the pool
        self._prefilter_rejects_total = 0
        self._cache_hits_total = 0
        self._cache_misses_total = 0

    def cached(self, credential: bytes) -> Grant | None:
        """The grant of a credential that was verified lately; None: authenticate. The grant must still be checked."""
        if len(credential) > CREDENTIAL_BYTES_MAX:
            return None  # too long to be one: not worth a hash
        digest = self._digest(credential)
        grant = self._cache.get(digest)
        if grant is None:
            self._cache_misses_total += 1
            return None
        if grant.generation != grant.api_key.generation or self._clock.now_ms() >= grant.verified_until_ms:
            del self._cache[digest]
            self._cache_misses_total += 1
            return None
        self._cache.move_to_end(digest)
        self._cache_hits_total += 1
        return grant

    async def authenticate(self, credential: bytes) -> Grant:
        """Verifies a credential: `tmak-…` in any case, a colon, the secret.

        Raises TM-AUTH-4011 (malformed, unknown key, wrong secret), TM-AUTH-4012 (disabled, expired), TM-SYS-5030 (pool full).
        """
        stored, secret = self._prefilter(credential)
        self._require_usable(stored.api_key)
        digest = self._digest(credential)
        flight = self._flights.get(digest)
        if flight is None:
            flight = self._start(digest, stored.argon2_hash, secret)
        # Shielded: one caller that gives up takes nothing from the others.
        if not await asyncio.shield(flight):
            raise self._refusal(Counter.AUTH_INVALID, "TM-AUTH-4011")
        if self._keyring.get(stored.api_key.key_id) is not stored:
            raise ApiError("TM-SYS-5030", {"reason": "restore"}, retry_after_s=1)  # all keys were replaced while Argon2 ran
        self._require_usable(stored.api_key)  # it may have changed while Argon2 ran
        return self._grant(digest, stored.api_key)

    def stats(self) -> dict[str, int]:
        """Figures for telemetry; runs, rejects, hits and misses only grow."""
        return {
            "argon2_runs_total": self._pool.runs_total,
            "argon2_pending": self._pool.pending,
            "prefilter_rejects_total": self._prefilter_rejects_total,
            "cache_hits": self._cache_hits_total,
            "cache_misses": self._cache_misses_total,
            "cache_entries": len(self._cache),
        }

    def close(self) -> None:
        """Ends the pool."""
        self._pool.close()

    def _digest(self, credential: bytes) -> bytes:
        # A key's id has one digest, however it is written: each would cost a run of Argon2 and a place in the cache.
        folded = credential[:KEY_ID_BYTES].lower() + credential[KEY_ID_BYTES:]
        return blake2b(folded, key=self._cache_key, digest_size=32).digest()

    def _prefilter(self, credential: bytes) -> tuple[StoredKey, bytes]:
        match = _CREDENTIAL.fullmatch(credential) if len(credential) <= CREDENTIAL_BYTES_MAX else None
        if match is None:
            raise self._refusal(Counter.AUTH_MALFORMED, "TM-AUTH-4011")
        secret = match[2]
        stored = self._keyring.get(match[1].decode().lower())
        # An unknown key costs what a wrong secret costs.
        salt, tag = (_NO_SALT, _NO_TAG) if stored is None else (stored.salt, stored.tag)
        if not compare_digest(secret_tag(salt, secret), tag) or stored is None:
            self._prefilter_rejects_total += 1
            raise self._refusal(Counter.AUTH_INVALID, "TM-AUTH-4011")
        return stored, secret

    def _require_usable(self, api_key: ApiKey) -> None:
        if not api_key.active:
            raise self._refusal(Counter.AUTH_DISABLED, "TM-AUTH-4012")
        if api_key.expires_at_ms != 0 and self._clock.now_ms() >= api_key.expires_at_ms:
            raise self._refusal(Counter.AUTH_EXPIRED, "TM-AUTH-4012")

    def _refusal(self, counter: Counter, code: str) -> ApiError:
        self._counters.increment(counter)
        return ApiError(code)

    def _start(self, digest: bytes, argon2_hash: str, secret: bytes) -> "asyncio.Future[bool]":
        try:
            flight = self._pool.verify(argon2_hash, secret)
        except ApiError:
            self._counters.increment(Counter.AUTH_OVERLOADED)
            raise
        self._flights[digest] = flight
        flight.add_done_callback(lambda _: self._flights.pop(digest, None))
        return flight

    def _grant(self, digest: bytes, api_key: ApiKey) -> Grant:
        grant = self._cache.get(digest)
        now_ms = self._clock.now_ms()
        if grant is None or grant.generation != api_key.generation or now_ms >= grant.verified_until_ms:
            grant = self._cache[digest] = Grant(api_key, now_ms + self._cache_ttl_ms)
            while len(self._cache) > self._cache_capacity:
                self._cache.popitem(last=False)
        return grant
