"""Random histories of concurrent session calls against a model of a few dictionaries.

The log is the test's: calls are started, and committed or refused later in any pattern, so decisions overlap. The model applies
what was committed, by rules of its own, and is compared with the table after every step; besides:

- a user never has more live sessions than the quota, whatever is in flight;
- a call succeeds exactly when its record was committed and the session was not revoked before that;
- a revoked session, and each of its tokens, stays dead;
- one token belongs to one session at a time;
- nothing stays reserved once everything is answered.
"""

import asyncio
from collections.abc import Awaitable
from hashlib import shake_128
from typing import Any, cast

import hypothesis.strategies as st
import orjson
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.domain import T0, TOMBSTONE_TTL_MS, SessionSettings, code_of, id16
from tests.support.fake_log import FakeLog, settle
from tokmesh._core.clock import Clock
from tokmesh._core.counters import CounterBlock
from tokmesh._core.table import Table
from tokmesh.ids import RandomSource, parse_session_id, token_hash
from tokmesh.keyring import KeyRing
from tokmesh.log.record import (
    SessionCreated,
    SessionRenewed,
    SessionsRevoked,
    SessionsTouched,
    SessionUpdated,
    TokenRotated,
)
from tokmesh.sessions import Sessions
from tokmesh.sessions.query import SessionFilter
from tokmesh.store import Store

LIVE, EXPIRED, REVOKED = 0, 1, 2
QUOTA = 3
USERS = ["ann", "bob"]
OWN_TOKENS = [f"tmtk_{letter * 43}" for letter in "ABC"]
SWEEP_SLACK_MS = 2_000


class StillClock:
    """A clock that moves only when told, so that every decision of a step sees the same time."""

    def __init__(self) -> None:
        self.time_ms = T0

    def now_ms(self) -> int:
        return self.time_ms


class ModelSession:
    """What the records said of one session."""

    def __init__(self, record: SessionCreated) -> None:
        self.user_id = record.user_id
        self.hash = record.token_hash
        self.data = record.data
        self.expires_at = record.expires_at_ms
        self.idle_ms = record.idle_seconds * 1000
        self.last_active = record.time_ms
        self.version = 1
        self.revoked_at: int | None = None
        self.alias: tuple[bytes, int] | None = None
        self.forgotten = False  # its tombstone was swept: what is applied later finds nothing

    def end(self) -> int:
        """When it ends or ended, Unix ms."""
        if self.revoked_at is not None:
            return self.revoked_at
        return min(self.expires_at, self.last_active + self.idle_ms) if self.idle_ms else self.expires_at

    def status(self, now_ms: int) -> int:
        if self.revoked_at is not None:
            return REVOKED
        return LIVE if now_ms < self.end() else EXPIRED


class Model:
    """All sessions that ever were, by id; `committed` holds the ids of records' objects with whether they had effect."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, ModelSession] = {}
        self.tokens: dict[bytes, bytes] = {}

    def revoke(self, session_id: bytes, time_ms: int) -> None:
        session = self.sessions.get(session_id)
        if session is not None and session.revoked_at is None and not session.forgotten:
            session.revoked_at = time_ms

    def apply(self, record: Any) -> None:
        if isinstance(record, SessionCreated):
            self.sessions[record.session_id] = ModelSession(record)
            self.tokens[record.token_hash] = record.session_id
            for session_id in record.evicts:
                self.revoke(session_id, record.time_ms)
        elif isinstance(record, SessionsRevoked):
            for session_id in record.session_ids:
                self.revoke(session_id, record.time_ms)
        elif isinstance(record, SessionRenewed | SessionUpdated | TokenRotated):
            session = self.sessions[record.session_id]
            if session.revoked_at is not None or session.forgotten:
                return
            session.version += 1
            session.last_active = max(session.last_active, record.time_ms)
            if isinstance(record, SessionRenewed):
                session.expires_at = record.expires_at_ms
            elif isinstance(record, SessionUpdated):
                session.data = record.data
            else:
                session.alias = (session.hash, record.old_valid_until_ms)
                session.hash = record.token_hash
                self.tokens[record.token_hash] = record.session_id

    def token_is_valid(self, hashed: bytes, now_ms: int) -> bool:
        session = self.sessions[self.tokens[hashed]]
        if session.status(now_ms) != LIVE:
            return False
        return session.hash == hashed or (session.alias is not None and session.alias[0] == hashed and now_ms < session.alias[1])


class SessionHistories(RuleBasedStateMachine):
    """One node's sessions under a log whose commits come when a rule says so."""

    @initialize(policy=st.sampled_from(["reject", "evict_oldest"]))
    def start(self, policy: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = StillClock()
        self.table = Table(tombstone_ttl_ms=TOMBSTONE_TTL_MS, seed=bytes(16))
        self.log = FakeLog(Store(self.table, KeyRing()), immediate=False)
        self.model = Model()
        self.policy = policy
        options = SessionSettings()
        options.quota.max_per_user, options.quota.policy = QUOTA, policy
        self.counter = 0
        self.sessions = Sessions(
            self.table, self.log, cast(Clock, self.clock), options, CounterBlock(), random=RandomSource(self.read_random)
        )
        self.calls: list[tuple[str, Any, asyncio.Task[Any]]] = []
        self.plain_tokens: dict[bytes, str] = {}

    def read_random(self, size: int) -> bytes:
        # Different bytes each time and the same in every run of an example.
        self.counter += 1
        return shake_128(self.counter.to_bytes(8)).digest(size)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.finish()
        finally:
            for _, _, task in self.calls:
                task.cancel()
            self.turn()
            self.loop.close()

    # ── driving ──

    def turn(self) -> None:
        self.loop.run_until_complete(settle())

    def call(self, name: str, subject: Any, call: Awaitable[Any]) -> None:
        self.calls.append((name, subject, self.loop.create_task(cast(Any, call))))
        self.turn()
        self.collect()

    def commit_one(self) -> None:
        record = self.log.waiting[0][0]
        if isinstance(record, SessionCreated):
            holder = self.model.tokens.get(record.token_hash)
            if holder is not None:
                session = self.model.sessions[holder]
                assert session.forgotten or session.hash != record.token_hash, "a token in use was given again"
        self.log.commit()
        self.model.apply(record)

    def collect(self) -> None:
        """Checks the calls that are answered."""
        open_calls = []
        for name, subject, task in self.calls:
            if not task.done():
                open_calls.append((name, subject, task))
                continue
            error = task.exception()
            code = code_of(error if error is not None else task.result())
            if name == "create":
                if code == "OK":
                    created = task.result()
                    session = self.model.sessions[id16(created)]
                    assert session.user_id == subject and session.expires_at == created.expires_at
                    self.plain_tokens[token_hash(created.token)] = created.token
                else:
                    assert code in ("TM-SYS-5001", "TM-SESS-4002", "TM-TOKN-4090"), code
                    assert code != "TM-SESS-4002" or self.policy == "reject"
            elif name == "rotate" and code == "OK":
                hashed = token_hash(task.result().token)
                assert hashed in self.model.tokens
                self.plain_tokens[hashed] = task.result().token
            elif code == "TM-SESS-4040":
                assert subject not in self.model.sessions or (
                    self.model.sessions[subject].revoked_at is not None or self.table.find(subject) < 0
                )
            elif name == "update" and code == "OK":
                assert self.model.sessions[subject].version >= task.result()
        self.calls = open_calls

    def some_id(self, choice: int) -> bytes:
        known = list(self.model.sessions)
        return known[choice % len(known)] if known else bytes(16)

    # ── rules ──

    @rule(
        user=st.sampled_from(USERS),
        own=st.none() | st.sampled_from(OWN_TOKENS),
        ttl=st.sampled_from([1, 5, 700, 7200]),
        idle=st.none() | st.sampled_from([1, 3, 1000]),
    )
    def create(self, user: str, own: str | None, ttl: int, idle: int | None) -> None:
        now_ms = self.clock.time_ms
        # Ids in flight and not applied count; ids that a proposal in flight evicts do not.
        proposals = [record for record, _ in self.log.waiting if isinstance(record, SessionCreated) and record.user_id == user]
        evicting = {session_id for record in proposals for session_id in record.evicts}
        holders = {record.session_id for record in proposals} | {
            session_id
            for session_id, session in self.model.sessions.items()
            if session.user_id == user and session.status(now_ms) == LIVE
        }
        full = len(holders - evicting) >= QUOTA
        taken = own is not None and (
            self.table.token_known(token_hash(own))
            or any(isinstance(r, SessionCreated) and r.token_hash == token_hash(own) for r, _ in self.log.waiting)
        )
        waiting = len(self.log.waiting)
        self.call("create", user, self.sessions.create(user, ttl_seconds=ttl, idle_seconds=idle, token=own))
        proposed = len(self.log.waiting) - waiting
        assert proposed == (0 if taken or (full and self.policy == "reject") else 1)
        if proposed:
            record = cast(SessionCreated, self.log.waiting[-1][0])
            assert bool(record.evicts) == full
            assert set(record.evicts) <= holders | evicting
            # The rest makes room for some of these, which are in flight and may be refused.
            again = {each for other in proposals if other.session_id in record.evicts for each in other.evicts}
            assert set(record.evicts) - again <= holders - evicting and again <= set(record.evicts)

    @rule(choice=st.integers(0, 50), ttl=st.sampled_from([1, 5, 7200]))
    def renew(self, choice: int, ttl: int) -> None:
        session_id = self.some_id(choice)
        self.call("renew", session_id, self.sessions.renew(session_id, ttl))

    @rule(choice=st.integers(0, 50), value=st.sampled_from(["x", "y"]), version=st.none() | st.integers(1, 4))
    def update(self, choice: int, value: str, version: int | None) -> None:
        session_id = self.some_id(choice)
        self.call("update", session_id, self.sessions.update(session_id, {"k": value}, version))

    @precondition(lambda self: self.plain_tokens)
    @rule(choice=st.integers(0, 50), grace=st.sampled_from([0, 2, 60]))
    def rotate(self, choice: int, grace: int) -> None:
        hashed = list(self.plain_tokens)[choice % len(self.plain_tokens)]
        self.call("rotate", self.model.tokens.get(hashed), self.sessions.rotate(self.plain_tokens[hashed], grace))

    @rule(choice=st.integers(0, 50))
    def revoke(self, choice: int) -> None:
        session_id = self.some_id(choice)
        self.call("revoke", session_id, self.sessions.revoke(session_id))

    @rule(user=st.sampled_from(USERS), spare=st.booleans(), choice=st.integers(0, 50))
    def revoke_user(self, user: str, spare: bool, choice: int) -> None:
        self.call("revoke_user", user, self.sessions.revoke_user(user, self.some_id(choice) if spare else None))

    @rule(choice=st.integers(0, 50))
    def touch(self, choice: int) -> None:
        session_id = self.some_id(choice)
        session = self.model.sessions.get(session_id)
        if session is not None and session.status(self.clock.time_ms) == LIVE:
            self.loop.run_until_complete(self.sessions.touch(session_id))
            session.last_active = max(session.last_active, self.clock.time_ms)

    @rule()
    def flush(self) -> None:
        waiting = len(self.log.waiting)
        self.call("flush", None, self.sessions.flush_touched())
        assert all(isinstance(record, SessionsTouched) for record, _ in list(self.log.waiting)[waiting:])

    @precondition(lambda self: self.log.waiting)
    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        for _ in range(min(count, len(self.log.waiting))):
            self.commit_one()
        self.turn()
        self.collect()

    @precondition(lambda self: self.log.waiting)
    @rule()
    def refuse(self) -> None:
        self.log.refuse()
        self.turn()
        self.collect()

    @rule(milliseconds=st.sampled_from([1, 999, 1_000, 2_500, 60_000, 700_000]))
    def pass_time(self, milliseconds: int) -> None:
        self.clock.time_ms += milliseconds

    @rule()
    def sweep(self) -> None:
        while self.sessions.sweep(1000):
            pass
        for session_id, session in self.model.sessions.items():
            due_ms = session.end() + TOMBSTONE_TTL_MS
            if not session.forgotten and self.table.find(session_id) < 0:
                assert due_ms <= self.clock.time_ms + 1000, "forgotten too early"
                session.forgotten = True
            assert session.forgotten or due_ms + SWEEP_SLACK_MS > self.clock.time_ms, "remembered too long"

    @rule(user=st.none() | st.sampled_from(USERS), size=st.integers(1, 5))
    def list_sessions(self, user: str | None, size: int) -> None:
        now_ms = self.clock.time_ms
        expected = {
            session_id
            for session_id, session in self.model.sessions.items()
            if session.status(now_ms) == LIVE and user in (None, session.user_id)
        }
        seen: list[bytes] = []
        wanted = SessionFilter(user_id=user, size=size)
        for _ in range(len(expected) + 2):
            page = self.loop.run_until_complete(self.sessions.list(wanted))
            assert page.total_items == len(expected)
            seen += [cast(bytes, parse_session_id(orjson.loads(item)["id"])) for item in page.items]
            if page.next_cursor is None:
                break
            wanted = wanted._replace(cursor=page.next_cursor)
        assert len(seen) == len(set(seen)) and set(seen) == expected

    # ── what must hold after every step ──

    @invariant()
    def the_table_is_what_was_committed(self) -> None:
        now_ms = self.clock.time_ms
        for session_id, session in self.model.sessions.items():
            entry = self.table.find(session_id)
            assert (entry < 0) == session.forgotten
            if entry < 0:
                continue
            assert self.table.status(entry, now_ms) == session.status(now_ms)
            view = self.table.session(entry)
            assert (view.user_id, view.version, view.data) == (session.user_id, session.version, session.data)
            assert (view.expires_at, view.last_active) == (session.expires_at, session.last_active)
        for hashed in self.model.tokens:
            verdict, entry = self.table.find_token(hashed, now_ms)
            assert (verdict == 0) == self.model.token_is_valid(hashed, now_ms)
            if verdict == 0:
                assert self.table.session(entry).id == self.model.tokens[hashed]

    @invariant()
    def no_user_has_more_than_the_quota(self) -> None:
        for user in USERS:
            live = [
                session
                for session in self.model.sessions.values()
                if session.user_id == user and session.status(self.clock.time_ms) == LIVE
            ]
            assert len(live) <= QUOTA

    def finish(self) -> None:
        while self.log.waiting:
            self.commit_one()
            self.turn()
        self.collect()
        assert not self.calls, "a call was never answered"
        assert self.sessions.in_flight == 0
        self.the_table_is_what_was_committed()


TestSessionHistories = SessionHistories.TestCase
TestSessionHistories.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
