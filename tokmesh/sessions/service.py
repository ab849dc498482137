"""Sessions: decides what a request may do and proposes the record that does it.

A decision sees the table plus what is in flight (reservations.py), so that of thirty-two racers for one token one wins and a quota
is never passed. Invariants:

- Nothing is answered before its record is committed and applied; a write awaits exactly one future of the log.
- Writes to one session (renew, update, rotate) take turns; each decides when its turn has come.
- A revocation waits for nobody. A write that was decided before it and is applied after it finds the session revoked and fails.
- A session that ended by idleness has expired like one whose life is over.
- Reservations and turns are held until the record is applied or refused, also when the caller gives up, and given back whatever
  the log says.

All methods run on the loop's thread. Times are Unix ms, session ids 16-byte ULIDs, sessions their JSON. Errors are ApiError; each
method names those of its own, and each write can also raise those of the log (`Log.propose`).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from tokmesh._core.clock import Clock
from tokmesh._core.counters import Counter, CounterBlock
from tokmesh._core.fields import are_plain
from tokmesh._core.session_view import SessionView
from tokmesh._core.table import Outcome, Status, Table, Verdict
from tokmesh.errors import ApiError
from tokmesh.ids import (
    ALL_SHARDS,
    RandomSource,
    UlidSource,
    format_session_id,
    is_token,
    new_token,
    new_token_of,
    shard_of,
    token_hash,
)
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
from tokmesh.sessions.operations import Created, Judged, Revoked, Rotated
from tokmesh.sessions.places import PlaceCount, Places, PlacesElsewhere
from tokmesh.sessions.query import SessionFilter, SessionPage, SessionQuery
from tokmesh.sessions.reservations import Reservations, WriteTurns
from tokmesh.sessions.touch_flush import TouchFlush

REVOKE_USER_MAX: Final = 1000

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


class Sessions:
    """Session rules over `table`, written through `log`. `settings`: `session` of the configuration. spread: waits until no node of
    the cluster can answer without what was revoked so far; None: there is no cluster. places_elsewhere: tells what a user's
    sessions that are not in the table hold of the quota; None, itself or of a user: all are in it."""

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
        self._places = PlaceCount(table, self._reservations)
        self.places_elsewhere: Callable[[str], Awaitable[PlacesElsewhere] | None] | None = None
        self.query = SessionQuery(table, clock)
        self._touch_flush = TouchFlush(table, log, clock)
        self.configure(settings)

    def configure(self, settings: SessionSettings) -> None:
        """Takes over other limits; sessions that exist keep the ends they have."""
        self._ttl_default_ms = settings.ttl.default_ms
        self._ttl_max_ms = settings.ttl.max_ms
        self._places.configure(settings.quota.max_per_user, settings.quota.policy)

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
        hashed: bytes | None = None,
    ) -> Created:
        """Begins a session. created_by: the key id of the caller, "" for the local administrator; hashed: instead of a token, where
        that is not to be known here, and then "" in what is returned.

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
        elsewhere = None
        if self.places_elsewhere is not None:
            asking = self.places_elsewhere(user_id)
            elsewhere = None if asking is None else await asking
        reserved_hash = None
        if token is not None:
            # Only a token from outside can meet another; 32 random bytes of ours cannot.
            hashed = reserved_hash = self._free(_hash_of(token))
        elif hashed is None:
            token = new_token(self._random)
            hashed = token_hash(token)
        else:
            token = ""
            reserved_hash = self._free(hashed)
        now_ms = self._clock.now_ms()
        session_id = self._ulids.make(now_ms, shard_of(hashed))
        evicts, places_given = self._places.make(user_id, now_ms, elsewhere)
        expires_at_ms = now_ms + ttl_ms
        record = SessionCreated(
            now_ms, session_id, hashed, user_id, device_id, ip_address, user_agent, created_by, expires_at_ms,
            idle_seconds, encoded, evicts,
        )  # fmt: skip
        self._reservations.take(user_id, session_id, evicts, reserved_hash)
        try:
            outcome = await self._log.propose(record)
        finally:
            self._reservations.release(user_id, session_id, reserved_hash)
        if outcome != _INSERTED:
            raise ApiError(_CREATE_REFUSALS[outcome])
        self._counters.increment(_COUNT_CREATE)
        if places_given:
            self._counters.increment(_COUNT_EVICT, places_given)
        return Created(format_session_id(session_id), token, expires_at_ms)

    def places(self, user_id: str, shards: int) -> Places:
        """What the user's sessions of those shards (bits) hold of the quota."""
        return self._places.held(user_id, self._clock.now_ms(), shards)

    async def get(self, session_id: bytes) -> bytes:
        """A live session. Raises TM-SESS-4040 (unknown, revoked), TM-SESS-4041 (expired)."""
        return self._table.session_json(self._live(session_id, self._clock.now_ms()))

    async def touch(self, session_id: bytes, ip_address: str | None = None, user_agent: str | None = None) -> bytes:
        """Marks a live session as used now, from this address and agent where given; the session.

        Soft: it reaches the log in bulk (`flush_touched`). Raises TM-SESS-4040, TM-SESS-4041, TM-SESS-4001.
        """
        now_ms = self._clock.now_ms()
        entry = self._live(session_id, now_ms)
        if ip_address is not None:
            ip_address = rules.normal_ip_address(ip_address)
        if user_agent is not None:
            user_agent = rules.cut_user_agent(user_agent)
        self._table.touch(session_id, now_ms, ip_address, user_agent)
        return self._table.session_json(entry)

    async def verdicts(self, hashes: Sequence[bytes], touch: bool) -> list[Judged]:
        """On tokens that are known by their hash only: a table Verdict and the session, b"" unless it is VALID."""
        now_ms = self._clock.now_ms()
        return [self._table.check(hashed, now_ms, now_ms if touch else 0) for hashed in hashes]

    async def renew(self, session_id: bytes, ttl_seconds: int) -> int:
        """Moves the absolute end to `ttl_seconds` from now, later or earlier; the new end.

        Raises TM-SESS-4001, TM-SESS-4040, TM-SESS-4041.
        """
        ttl_ms = rules.ttl_ms(ttl_seconds, self._ttl_max_ms)
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

    async def revoke(self, session_id: bytes, sync: bool = False) -> Revoked:
        """Ends a session, also an expired one, for good; 1, or 0 when it was revoked before. sync: then `everywhere`.

        Raises TM-SESS-4040 when it is unknown; a revoked session is remembered, and so revoked again with success, for
        `session.tombstone_ttl`.
        """
        entry = self._table.find(session_id)
        if entry < 0:
            raise ApiError("TM-SESS-4040")
        now_ms = self._clock.now_ms()
        ids = () if self._table.status(entry, now_ms) == _REVOKED else (session_id,)
        return await self._revoke(ids, now_ms, sync)

    async def revoke_user(
        self, user_id: str, except_id: bytes | None = None, sync: bool = False, shards: int = ALL_SHARDS
    ) -> Revoked:
        """Ends every live session of a user but `except_id`, also those about to begin; how many ended. In a cluster also those
        that have expired here and are remembered: by another node's clock they may live. shards (bits): of these only; sync: then
        `everywhere`.

        Raises TM-SESS-4001 for what is no user id, TM-SESS-4002 when they are more than 1000, and ends none then.
        """
        rules.check_user_id(user_id)
        now_ms = self._clock.now_ms()
        of_user = OfUser(self._table, user_id, self._reservations, now_ms)
        ids = of_user.living(except_id, shards)
        if len(ids) > REVOKE_USER_MAX:
            raise ApiError("TM-SESS-4002", {"limit": REVOKE_USER_MAX})
        if self._spread is not None:
            ids += of_user.expired(except_id, shards)
        return await self._revoke(ids, now_ms, sync)

    async def _revoke(self, ids: Sequence[bytes], now_ms: int, sync: bool) -> Revoked:
        parts = [ids[start : start + REVOKE_USER_MAX] for start in range(0, len(ids), REVOKE_USER_MAX)]
        if not parts and self._spread is not None:
            parts = [()]  # that there is nobody to revoke must be confirmed: this node may be alone in knowing it
        count = 0
        for part in parts:
            count += await self._log.propose(SessionsRevoked(now_ms, part))
        self._counters.increment(Counter.SESSION_REVOKE, count)
        return Revoked(count, await self.everywhere() if sync else None)

    async def everywhere(self) -> Reached | None:
        """Waits until no node of the cluster can answer without what was revoked so far; None on a node alone, where that is so."""
        return None if self._spread is None else await self._spread()

    async def rotate(self, token: str, grace_seconds: int = 0) -> Rotated:
        """Gives the token's session a new token; the old one stays good for the grace, within the session's life.

        A token in its grace can be rotated, so that an answer that got lost can be asked for again; the token that was lost
        then has the same grace. Raises TM-TOKN-4000, TM-TOKN-4010/4011/4012, TM-SESS-4001.
        """
        hashed = _hash_of(token)
        rules.check_grace_seconds(grace_seconds)
        new = new_token_of(shard_of(self._live_by_token(hashed, self._clock.now_ms()).id), self._random)
        expires_at_ms, old_valid_until_ms = await self.rotate_to(hashed, token_hash(new), grace_seconds)
        return Rotated(new, expires_at_ms, old_valid_until_ms)

    async def rotate_to(self, hashed: bytes, new_hash: bytes, grace_seconds: int) -> tuple[int, int]:
        """The same of tokens that are known by their hash only, both of one shard; the session's end, and that of the grace."""
        rules.check_grace_seconds(grace_seconds)
        session_id = self._live_by_token(hashed, self._clock.now_ms()).id
        await self._turns.enter(session_id)
        try:
            now_ms = self._clock.now_ms()
            expires_at_ms = self._live_by_token(hashed, now_ms).expires_at
            old_valid_until_ms = min(now_ms + grace_seconds * 1000, expires_at_ms)
            outcome = await self._log.propose(TokenRotated(now_ms, session_id, new_hash, old_valid_until_ms))
        finally:
            self._turns.leave(session_id)
        if outcome != _DONE:
            raise ApiError("TM-TOKN-4012")  # revoked between decision and commit
        self._counters.increment(Counter.SESSION_ROTATE)
        return expires_at_ms, old_valid_until_ms

    async def list(self, session_filter: SessionFilter) -> SessionPage:
        """Live sessions that pass the filter, a page at a time: see query.py. Raises TM-ARG-1001, TM-ARG-1003, TM-SESS-4001."""
        return await self.query.run(session_filter)

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

    def _free(self, hashed: bytes) -> bytes:
        if self._reservations.holds_token(hashed) or self._table.token_known(hashed):
            raise ApiError("TM-TOKN-4090")
        return hashed


def _hash_of(token: str) -> bytes:
    if not is_token(token):
        raise ApiError("TM-TOKN-4000", {"field": "token"})
    return token_hash(token)
