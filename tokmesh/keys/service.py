"""API keys as an administrator handles them: make one, list them, switch one on or off. Written through the log.

A secret exists here only until it is returned; what is kept is an Argon2id verifier and the prefilter's tag. Any key can be
disabled, also the last admin key: the local socket in the data directory needs none, so nobody is locked out for good.

The first key is made by a start that finds none. Nodes of a cluster that find none at the same time all give it the same id, of
which the stream takes one: so there is one, and one node that can show its secret.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from tokmesh._core.clock import Clock
from tokmesh._core.principal import ROLES
from tokmesh.errors import ApiError
from tokmesh.ids import RandomSource, UlidSource, format_key_id, new_secret
from tokmesh.keyring import KeyRing, StoredKey, parse_networks
from tokmesh.keys.argon2_pool import Argon2Pool
from tokmesh.keys.authenticator import SALT_BYTES, AuthSettings, secret_tag
from tokmesh.log.interface import Log
from tokmesh.log.record import KeyCreated, KeyStatusChanged

KEYS_MAX: Final = 10_000
DESCRIPTION_CHARS_MAX: Final = 256
NETWORKS_MAX: Final = 64
RATE_LIMIT_MAX: Final = 10_000_000
EXPIRES_AT_MAX_MS: Final = 2**53
FIRST_RETRY_S: Final = 0.1
_UNSETTLED: Final = ("TM-CLST-5030", "TM-ADMIN-4091")  # no quorum, or nobody knows; a key of that id is in the stream

logger = logging.getLogger("tokmesh.keys")


class CreatedKey(NamedTuple):
    """A new key: `tmak-…`, and its secret `tmas_…`, which is shown once."""

    key_id: str
    key_secret: str


class Keys:
    """The keys of `keyring`, changed through `log`. `settings`: `security.auth` of the configuration."""

    def __init__(
        self,
        keyring: KeyRing,
        log: Log,
        clock: Clock,
        settings: AuthSettings,
        *,
        pool: Argon2Pool | None = None,
        random: RandomSource | None = None,
    ) -> None:
        self._keyring = keyring
        self._log = log
        self._clock = clock
        self._pool = Argon2Pool(settings.argon2, workers=1, pending_max=8) if pool is None else pool
        self._random = RandomSource() if random is None else random
        self._ulids = UlidSource(self._random)
        self._creating = 0  # by `create`, neither in the key ring nor refused yet

    async def create(
        self,
        role: str,
        description: str = "",
        allowedlist: list[str] | None = None,
        rate_limit: float | None = None,
        expires_at: int | None = None,
    ) -> CreatedKey:
        """Makes a key. allowedlist: addresses and CIDRs it may be used from, none for all; rate_limit: requests a second, 0 or
        None for no limit; expires_at: Unix ms, None for never.

        Raises TM-ARG-1001 (details: field, rule), TM-ADMIN-4091 (10,000 keys exist or are being made), TM-SYS-5030 (too many at
        once).
        """
        self._creating += 1
        try:
            record, secret = await self._make(role, description, allowedlist, rate_limit, expires_at)
            await self._log.propose(record)
        finally:
            self._creating -= 1
        return CreatedKey(format_key_id(record.key_id), secret)

    async def create_first(self, key_id: bytes | None, stop: asyncio.Event) -> CreatedKey | None:
        """Makes an admin key where there is none, however long that takes. key_id: 16 bytes, the same on every node that may do so
        at the same time; None for any.

        None: another node has made it, or `stop` came first. Raises ApiError as `create`, but for TM-CLST-5030."""
        record, secret = await self._make("admin", "made at the first start", key_id=key_id)
        name = format_key_id(record.key_id)
        while not stop.is_set():
            try:
                await self._log.propose(record)
            except ApiError as error:
                if error.code not in _UNSETTLED:
                    raise
                logger.info("the first API key is not made yet", extra={"code": error.code})
            stored = self._keyring.get(name)
            if stored is not None:  # also when the outcome was not known: proposed once more it would be refused
                return CreatedKey(name, secret) if stored.tag == record.tag else None
            await asyncio.sleep(FIRST_RETRY_S)
        return None

    def list(self) -> "list[StoredKey]":
        """Every key, oldest first."""
        return self._keyring.all()

    def has_any(self) -> bool:
        """Whether a key was ever made."""
        return len(self._keyring) > 0

    async def set_status(self, key_id: bytes, active: bool) -> None:
        """Enables or disables a key (16-byte id); idempotent. Raises TM-ADMIN-4041 for an unknown one."""
        if self._keyring.get(format_key_id(key_id)) is None:
            raise ApiError("TM-ADMIN-4041")
        # Proposed even when it is so already: another change may be in flight, and the later one must hold.
        await self._log.propose(KeyStatusChanged(self._clock.now_ms(), key_id, active))

    def close(self) -> None:
        """Ends the pool."""
        self._pool.close()

    async def _make(
        self,
        role: str,
        description: str,
        allowedlist: Sequence[str] | None = None,
        rate_limit: float | None = None,
        expires_at: int | None = None,
        *,
        key_id: bytes | None = None,
    ) -> tuple[KeyCreated, str]:
        """A key's record, not proposed yet, and its secret."""
        limit = 0.0 if rate_limit is None else rate_limit
        self._check(role, description, limit, expires_at, self._clock.now_ms())
        allowed = _normal_networks(allowedlist or ())
        if len(self._keyring) + self._creating > KEYS_MAX:  # this one is among them
            raise ApiError("TM-ADMIN-4091", {"limit": KEYS_MAX})
        secret = new_secret(self._random)
        argon2_hash = await self._pool.hash(secret.encode(), self._random.take(16))
        salt = self._random.take(SALT_BYTES)
        now_ms = self._clock.now_ms()
        record = KeyCreated(
            now_ms,
            key_id or self._ulids.make(now_ms),
            role,
            description,
            allowed,
            float(limit),
            expires_at or 0,
            argon2_hash,
            salt,
            secret_tag(salt, secret.encode()),
        )
        return record, secret

    def _check(self, role: str, description: str, limit: float, expires_at: int | None, now_ms: int) -> None:
        if role not in ROLES:
            _refuse("role", "one of " + ", ".join(ROLES))
        if len(description) > DESCRIPTION_CHARS_MAX or not description.isprintable():
            _refuse("description", "at most 256 printable characters")
        if type(limit) not in (int, float) or not math.isfinite(limit) or not 0 <= limit <= RATE_LIMIT_MAX:
            _refuse("rate_limit", "a number from 0 to 10000000")
        if expires_at is not None and (type(expires_at) is not int or not now_ms < expires_at <= EXPIRES_AT_MAX_MS):
            _refuse("expires_at", "a time to come, in Unix ms")


def _refuse(field: str, rule: str) -> None:
    raise ApiError("TM-ARG-1001", {"field": field, "rule": rule})


def _normal_networks(allowedlist: Sequence[str]) -> tuple[str, ...]:
    """The networks in their normal form (10.1.2.3/8 → 10.0.0.0/8), each once, in the order given."""
    if len(allowedlist) > NETWORKS_MAX:
        _refuse("allowedlist", "at most 64 entries")
    try:
        networks = parse_networks(allowedlist) or ()
    except ValueError:
        raise ApiError("TM-ARG-1001", {"field": "allowedlist", "rule": "addresses and CIDRs"}) from None
    return tuple(dict.fromkeys(str(network) for network in networks))
