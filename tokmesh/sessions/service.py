"""Sessions: decides what a request may do and proposes the record that does it.

A decision sees the table plus what is in flight (reservations.py), so that of thirty-two racers for one token one wins and a quota
is never passed. Invariants:

- Nothing is answered before its record is committed and applied; a write awaits exactly one future of the log.
- Writes to one session (renew, update, rotate) take turns; each decides when its turn has come.
- A revocation waits for nobody. A write that was decided before it and is applied after it finds the session revoked and fails.
- A session that ended by idleness has expired like one whose life is over.
- Reservations and turns are held until the record is applied or refused, also when the caller gives up, and given back whatever
  the log says.

All methods run on the loop's thread. Times are Unix ms, session ids 16-byte ULIDs, entries are table entries that stay good until
the caller awaits. Errors are ApiError; each method names those of its own, and each write can also raise the log's TM-SYS-5001.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from tokmesh._core.clock import Clock
from tokmesh._core.counters import Counter, CounterBlock
from tokmesh._core.fields import are_plain
from tokmesh._core.session_view import SessionView
from tokmesh._core.table import Outcome, Status, Table, Verdict
from tokmesh.errors import ApiError
from tokmesh.ids import RandomSource, UlidSource, format_session_id, is_token, new_token, token_hash
from tokmesh.log.interface import Log, Reached
from tokmesh.log.record import (
    SessionCreated,
    SessionRenewed,
    SessionsRevoked,
    SessionUpdated,
    TokenRotated,
)
from tokmesh.sessions import rules
from tokmesh.sessions.of_user import OfUser
from tokmesh.sessions.query import SessionFilter, SessionPage, SessionQuery
from tokmesh.sessions.reservations import Reservations, WriteTurns
from tokmesh.sessions.touch_flush import TouchFlush

__all__ = ["Created", "Rotated", "SessionFilter", "SessionPage", "Sessions"]

REVOKE_USER_MAX: Final = 1000
# A create makes room for itself; where a quota was lowered, sessions above it go in steps of this many.
EVICTS_MAX: Final = 1000

_LIVE: Final = int(Status.LIVE)
_REVOKED: Final = int(Status.REVOKED)
_DONE: Final = int(Outcome.DONE)
_INSERTED: Final = int(Outcome.INSERTED)
_VALID: Final = int(Verdict.VERDICT_VALID)
_CREATE_REFUSALS: Final = {
    int(Outcome.ID_EXISTS): "TM-SESS-4090",
    int(Outcome.TOKEN_EXISTS): "TM-TOKN-4090",
    int(Outcome.FULL): "TM-SYS-5030",
}
_VERDICT_CODES: Final = {
    int(Verdict.VERDICT_UNKNOWN): "TM-TOKN-4010",
    int(Verdict.VERDICT_EXPIRED): "TM-TOKN-4011",
    int(Verdict.VERDICT_REVOKED): "TM-TOKN-4012",
}
_COUNT_CREATE: Final = int(Counter.SESSION_CREATE)
_COUNT_EVICT: Final = int(Counter.SESSION_EVICT)


class Ttl(Protocol):
    @property
    def default_ms(self) -> int: ...
    @property
    def max_ms(self) -> int: ...


class Quota(Protocol):
    @property
    def max_per_user(self) -> int: ...
    @property
    def policy(self) -> str: ...


class SessionSettings(Protocol):
    """`settings.session` of the configuration; max_per_user ≥ 1, policy "reject" or "evict_oldest"."""

    @property
    def ttl(self) -> Ttl: ...
    @property
    def quota(self) -> Quota: ...


@dataclass(slots=True)
class Created:
    """A new session: `tmss-…`, the token (shown once), its absolute end."""

    session_id: str
    token: str
    expires_at: int


class Rotated(NamedTuple):
    """A session's new token (shown once), the session's absolute end, the end of the old token's grace."""

    token: str
    expires_at: int
    old_valid_until: int


class Sessions:
    """Session rules over `table`, written through `log`. `settings`: `session` of the configuration."""

    def __init__(
        self,
        table: Table,
        log: Log,
        clock: Clock,
        settings: SessionSettings,
        counters: CounterBlock,
        spread: Callable[[], Awaitable[Reached]] | None = None,
        *,
        random: RandomSource | None = None,
    ) -> None:
        self._spread = spread
        self._table = table
        self._log = log
        self._clock = clock
        self._counters = counters
        self._random = RandomSource() if random is None else random
        self._ulids = UlidSource(self._random)
        self._reservations = Reservations()
        self._turns = WriteTurns()
        self._query = SessionQuery(table, clock)
        self._touch_flush = TouchFlush(table, log, clock)
        self.configure(settings)

    def configure(self, settings: SessionSettings) -> None:
        """Takes over other limits; sessions that exist keep the ends they have."""
        self._ttl_default_ms = settings.ttl.default_ms
        self._ttl_max_ms = settings.ttl.max_ms
        self._quota = settings.quota.max_per_user
        self._evicts_oldest = settings.quota.policy == "evict_oldest"

    @property
    def in_flight(self) -> int:
        """Reservations and turns held: 0 when nothing is under way."""
        return len(self._reservations) + len(self._turns)

    async def create(
        self,
        user_id: str,
        device_id: str = "",
        ip_address: str = "",
        user_agent: str = "",
        ttl_seconds: int | None = None,
        idle_seconds: int | None = None,
        data: dict[str, str] | None = None,
        token: str | None = None,
        *,
        created_by: str = "",
    ) -> Created:
        """Begins a session. created_by: the key id of the caller, "" for the local administrator.

        Raises TM-SESS-4001 (a field's rule), TM-TOKN-4000 and TM-TOKN-4090 (the caller's own token is malformed, or in use by a
        live, remembered or beginning session), TM-SESS-4002 (quota), TM-SYS-5030 (the table is full).
        """
        if not are_plain(user_id, device_id, user_agent):
            rules.check_user_id(user_id)
            rules.check_device_id(device_id)
            user_agent = rules.cut_user_agent(user_agent)
        if ip_address:
            ip_address = rules.normal_ip_address(ip_address)
        ttl_ms = self._ttl_default_ms if ttl_seconds is None else rules.ttl_ms(ttl_seconds, self._ttl_max_ms)
        if idle_seconds is None:
            idle_seconds = 0
        else:
            rules.check_idle_seconds(idle_seconds, self._ttl_max_ms)
        encoded = rules.encode_data(data) if data else b"{}"
        reserved_hash = None
        if token is None:
            token = new_token(self._random)
            hashed = token_hash(token)
        else:
            # Only a token from outside can meet another; 32 random bytes of ours cannot.
            hashed = reserved_hash = self._free_token_hash(token)
        now_ms = self._clock.now_ms()
        session_id = self._ulids.make(now_ms)
        evicts = self._make_place(user_id, now_ms)
        expires_at_ms = now_ms + ttl_ms
        record = SessionCreated(
            now_ms, session_id, hashed, user_id, device_id, ip_address, user_agent, created_by, expires_at_ms,
            idle_seconds, encoded, evicts,
        )  # fmt: skip
        self._reservations.take(user_id, session_id, evicts, reserved_hash)
        try:
            outcome = await self._log.propose(record)
        finally:
            self._reservations.release(user_id, session_id, evicts, reserved_hash)
        if outcome != _INSERTED:
            raise ApiError(_CREATE_REFUSALS[outcome])
        self._counters.increment(_COUNT_CREATE)
        if evicts:
            self._counters.increment(_COUNT_EVICT, len(evicts))
        return Created(format_session_id(session_id), token, expires_at_ms)

    def get(self, session_id: bytes) -> int:
        """The entry of a live session. Raises TM-SESS-4040 (unknown, revoked), TM-SESS-4041 (expired)."""
        return self._live(session_id, self._clock.now_ms())

    def view(self, entry: int) -> SessionView:
        """The session at an entry, as values."""
        return self._table.session(entry)

    def session_json(self, entry: int) -> bytes:
        """The session at an entry, as JSON."""
        return self._table.session_json(entry)

    def touch(self, session_id: bytes, ip_address: str | None = None, user_agent: str | None = None) -> int:
        """Marks a live session as used now, from this address and agent where given; its entry.

        Soft: it reaches the log in bulk (`flush_touched`). Raises TM-SESS-4040, TM-SESS-4041, TM-SESS-4001.
        """
        now_ms = self._clock.now_ms()
        entry = self._live(session_id, now_ms)
        if ip_address is not None:
            ip_address = rules.normal_ip_address(ip_address)
        if user_agent is not None:
            user_agent = rules.cut_user_agent(user_agent)
        self._table.touch(session_id, now_ms, ip_address, user_agent)
        return entry

    async def renew(self, session_id: bytes, ttl_seconds: int | None = None) -> int:
        """Moves the absolute end to `ttl_seconds` (default: as at creation) from now, later or earlier; the new end.

        Raises TM-SESS-4001, TM-SESS-4040, TM-SESS-4041.
        """
        ttl_ms = self._ttl_default_ms if ttl_seconds is None else rules.ttl_ms(ttl_seconds, self._ttl_max_ms)
        await self._turns.enter(session_id)
        try:
            now_ms = self._clock.now_ms()
            self._live(session_id, now_ms)
            outcome = await self._log.propose(SessionRenewed(now_ms, session_id, now_ms + ttl_ms))
        finally:
            self._turns.leave(session_id)
        self._require_done(outcome)
        self._counters.increment(Counter.SESSION_RENEW)
        return now_ms + ttl_ms

    async def update(self, session_id: bytes, data: dict[str, str], if_version: int | None = None) -> int:
        """Replaces all of `data`, if the version is `if_version` where given; the new version.

        Raises TM-SESS-4001, TM-SESS-4040, TM-SESS-4041, TM-SESS-4091 (details: the version it has).
        """
        encoded = rules.encode_data(data)
        await self._turns.enter(session_id)
        try:
            now_ms = self._clock.now_ms()
            version = self._table.session(self._live(session_id, now_ms)).version
            if if_version is not None and if_version != version:
                raise ApiError("TM-SESS-4091", {"version": version})
            outcome = await self._log.propose(SessionUpdated(now_ms, session_id, encoded))
        finally:
            self._turns.leave(session_id)
        self._require_done(outcome)
        self._counters.increment(Counter.SESSION_UPDATE)
        return version + 1

    async def revoke(self, session_id: bytes) -> bool:
        """Ends a session, also an expired one, for good; whether this call did (False: it was revoked before).

        Raises TM-SESS-4040 when it is unknown; a revoked session is remembered, and so revoked again with success, for
        `session.tombstone_ttl`.
        """
        entry = self._table.find(session_id)
        if entry < 0:
            raise ApiError("TM-SESS-4040")
        now_ms = self._clock.now_ms()
        if self._table.status(entry, now_ms) == _REVOKED:
            return bool(await self._confirm(now_ms))
        count = await self._log.propose(SessionsRevoked(now_ms, (session_id,)))
        self._counters.increment(Counter.SESSION_REVOKE, count)
        return bool(count)

    async def revoke_user(self, user_id: str, except_id: bytes | None = None) -> int:
        """Ends every live session of a user but `except_id`, also those about to begin, in one record; how many ended. In a cluster
        also those that have expired here and are remembered: by another node's clock they may live.

        Raises TM-SESS-4001 for what is no user id, TM-SESS-4002 when they are more than 1000, and ends none then.
        """
        rules.check_user_id(user_id)
        now_ms = self._clock.now_ms()
        of_user = OfUser(self._table, user_id, self._reservations, now_ms)
        ids = of_user.living(except_id)
        if len(ids) > REVOKE_USER_MAX:
            raise ApiError("TM-SESS-4002", {"limit": REVOKE_USER_MAX})
        if self._spread is not None:
            ids += of_user.expired(except_id)
        if not ids:
            return await self._confirm(now_ms)
        count = 0
        for start in range(0, len(ids), REVOKE_USER_MAX):
            count += await self._log.propose(SessionsRevoked(now_ms, ids[start : start + REVOKE_USER_MAX]))
        self._counters.increment(Counter.SESSION_REVOKE, count)
        return count

    async def _confirm(self, now_ms: int) -> int:
        """0, when it may be said: in a cluster this node may be alone in knowing that something was revoked."""
        count: int = 0 if self._spread is None else await self._log.propose(SessionsRevoked(now_ms, ()))
        return count

    async def everywhere(self) -> Reached | None:
        """Waits until no node of the cluster can answer without what was revoked so far; None on a node alone, where that is so."""
        return None if self._spread is None else await self._spread()

    async def rotate(self, token: str, grace_seconds: int = 0) -> Rotated:
        """Gives the token's session a new token; the old one stays good for the grace, within the session's life.

        A token in its grace can be rotated, so that an answer that got lost can be asked for again; the token that was lost
        then has the same grace. Raises TM-TOKN-4000, TM-TOKN-4010/4011/4012, TM-SESS-4001.
        """
        if not is_token(token):
            raise ApiError("TM-TOKN-4000", {"field": "token"})
        rules.check_grace_seconds(grace_seconds)
        hashed = token_hash(token)
        session_id = self._live_by_token(hashed, self._clock.now_ms()).id
        await self._turns.enter(session_id)
        try:
            now_ms = self._clock.now_ms()
            expires_at_ms = self._live_by_token(hashed, now_ms).expires_at
            new = new_token(self._random)
            old_valid_until_ms = min(now_ms + grace_seconds * 1000, expires_at_ms)
            outcome = await self._log.propose(TokenRotated(now_ms, session_id, token_hash(new), old_valid_until_ms))
        finally:
            self._turns.leave(session_id)
        if outcome != _DONE:
            raise ApiError("TM-TOKN-4012")  # revoked between decision and commit
        self._counters.increment(Counter.SESSION_ROTATE)
        return Rotated(new, expires_at_ms, old_valid_until_ms)

    async def list(self, session_filter: SessionFilter) -> SessionPage:
        """Live sessions that pass the filter, a page at a time: see session_query.py. Raises TM-ARG-1001, TM-ARG-1003."""
        return await self._query.run(session_filter)

    async def flush_touched(self) -> int:
        """Writes what was touched since the last call to the log; how many sessions. See touch_flush.py. Raises TM-SYS-5001."""
        return await self._touch_flush.run()

    def forget_touched(self) -> None:
        """What was touched and is not written yet belongs to a state that a restore has replaced."""
        self._touch_flush.forget()

    def sweep(self, budget: int) -> int:
        """Ends what is due, at most `budget` entries; how many are still due."""
        return self._table.advance(self._clock.now_ms(), budget)

    def _live(self, session_id: bytes, now_ms: int) -> int:
        entry = self._table.find(session_id)
        if entry < 0:
            raise ApiError("TM-SESS-4040")
        status = self._table.status(entry, now_ms)
        if status != _LIVE:
            raise ApiError("TM-SESS-4040" if status == _REVOKED else "TM-SESS-4041")
        return entry

    def _live_by_token(self, hashed: bytes, now_ms: int) -> SessionView:
        verdict, entry = self._table.find_token(hashed, now_ms)
        if verdict != _VALID:
            raise ApiError(_VERDICT_CODES.get(verdict, "TM-SYS-5030"))
        return self._table.session(entry)

    def _require_done(self, outcome: int) -> None:
        # It was live when decided: a revocation was committed in between. What is gone must not come back.
        if outcome != _DONE:
            raise ApiError("TM-SESS-4040")

    def _free_token_hash(self, token: str) -> bytes:
        if not is_token(token):
            raise ApiError("TM-TOKN-4000", {"field": "token"})
        hashed = token_hash(token)
        if self._reservations.holds_token(hashed) or self._table.token_known(hashed):
            raise ApiError("TM-TOKN-4090")
        return hashed

    def _make_place(self, user_id: str, now_ms: int) -> tuple[bytes, ...]:
        """The sessions that must end for one more of the user's to begin; raises TM-SESS-4002 under policy reject."""
        of_user = OfUser(self._table, user_id, self._reservations, now_ms)
        if of_user.places_max < self._quota:
            return ()
        candidates = of_user.holders_of_places()
        excess = len(candidates) - self._quota + 1
        if excess <= 0:
            return ()
        if not self._evicts_oldest:
            raise ApiError("TM-SESS-4002", {"limit": self._quota})
        return tuple(candidates[: min(excess, EVICTS_MAX)])
