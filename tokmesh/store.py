"""The one applier: `Store.apply` is the only code that changes the table and the key ring (ARCHITECTURE.md, "The picture").

It takes no clock and no randomness: a record carries both. It is idempotent by sequence: a record at or below
`applied_sequence` changes nothing. Replay at start and a normal write are the same call; during replay the table's timer
wheel follows the records at a distance, so that what had ended long ago does not pile up in memory. `apply_all` is `apply` for many
records of a stream: what it knows a short way for means the same either way.
"""

from collections.abc import Callable
from typing import Any, Final

from tokmesh._core.stated import begin_stated, entries_after
from tokmesh._core.streamed import StreamedBatch
from tokmesh._core.table import Outcome, Table, Verdict
from tokmesh.following import Following, FollowingRecord
from tokmesh.ids import ALL_SHARDS
from tokmesh.keyring import KeyRing
from tokmesh.log.record import (
    AnyRecord,
    ClusterStated,
    KeyCreated,
    KeyStated,
    KeyStatusChanged,
    NodeStated,
    PlaceStated,
    RecordError,
    SessionCreated,
    SessionHeld,
    SessionRenewed,
    SessionsRevoked,
    SessionStated,
    SessionsTouched,
    SessionUpdated,
    ShardLoaded,
    ShardsHeld,
    StreamBound,
    Streamed,
    TokenRotated,
    decode,
    decode_enveloped,
)

# A decision may reach the log this much after the moment it was made for; the wheel stays as far behind the records.
REPLAY_SLACK_MS: Final = 60_000
REPLAY_ADVANCE_RECORDS: Final = 65_536
_ADVANCE_BUDGET: Final = 65_536
_FOREVER_MS: Final = 2**62

_INSERTED: Final = int(Outcome.INSERTED)
_TOKEN_EXISTS: Final = int(Outcome.TOKEN_EXISTS)
_VALID: Final = int(Verdict.VERDICT_VALID)
_DONE: Final = int(Outcome.DONE)


class Store:
    """Applies records to `table` and `keyring`.

    replay_until_ms: Unix ms that the wheel never passes during replay; give the time of the start, so that records written
    under a clock that ran ahead end no session early.
    """

    __slots__ = ("_apply_by_type", "_keyring", "_replay_until_ms", "_replayed", "_table", "applied_sequence", "following")

    def __init__(self, table: Table, keyring: KeyRing, *, replay_until_ms: int = _FOREVER_MS) -> None:
        self._table = table
        self._keyring = keyring
        self._replay_until_ms = replay_until_ms
        self._replayed = 0
        self.applied_sequence = 0
        self.following = Following(table)
        self._apply_by_type: dict[type[AnyRecord], Callable[[Any], int]] = {
            SessionCreated: self._session_created,
            SessionRenewed: self._session_renewed,
            SessionUpdated: self._session_updated,
            SessionsRevoked: self._sessions_revoked,
            TokenRotated: self._token_rotated,
            SessionsTouched: self._sessions_touched,
            KeyCreated: keyring.apply_created,
            KeyStatusChanged: keyring.apply_status,
            SessionStated: self._session_stated,
            SessionHeld: self._session_held,
            KeyStated: self._key_stated,
            Streamed: self._streamed,
            StreamBound: self._stream_bound,
            NodeStated: self.following.apply_node,
            ClusterStated: self.following.apply_cluster,
            PlaceStated: _nothing,
            ShardsHeld: self._shards_held,
            ShardLoaded: self._shard_loaded,
        }

    def apply(self, sequence: int, record: AnyRecord) -> int | None:
        """Applies the record at `sequence` (≥ 1, rising); None when it was applied before.

        Else the outcome: of SessionCreated, SessionRenewed, SessionUpdated, TokenRotated, SessionStated, SessionHeld a table
        Outcome; of SessionsRevoked the number of sessions it ended; of SessionsTouched 0; of the records of keys and of the cluster
        1 when they changed something, else 0; of Streamed and ShardLoaded that of what it holds, -1 when that meant nothing here.
        """
        if sequence <= self.applied_sequence:
            return None
        outcome = self._apply_by_type[type(record)](record)
        self.applied_sequence = sequence
        return outcome

    def apply_all(self, sequence: int, batch: StreamedBatch, start: int, end: int) -> None:
        """Applies records `start` ≤ n < `end` of a batch, the first of them at `sequence`."""
        following, table = self.following, self._table
        known = min(max(self.applied_sequence + 1 - sequence, 0), end - start)
        start, sequence = start + known, sequence + known
        while start < end:
            taken = 0
            if not following.loading and not following.tokenless:  # then each session is looked at
                places = following.room_for(entries_after(table, end - start))
                taken = begin_stated(table, batch, start, end, following.position, following.held, places)
            if taken:
                following.advance_to(*batch.place(start + taken - 1), batch.last_missing(start, start + taken))
                start, sequence = start + taken, sequence + taken
                self.applied_sequence = sequence - 1
            if start < end:
                self.apply(sequence, decode(batch.record(start)))
                start, sequence = start + 1, sequence + 1

    def take_place(self, record: FollowingRecord) -> None:
        """A record of `Following.records`, from a snapshot, whose sessions are in the table."""
        if isinstance(record, SessionsRevoked):
            self.following.tokenless.update(record.session_ids)
        else:
            self._apply_by_type[type(record)](record)
        self._forget()

    def replay(self, sequence: int, record: AnyRecord) -> int | None:
        """`apply` for records read back from the log: every 65,536 of them the wheel is moved to 60 s before the record."""
        outcome = self.apply(sequence, record)
        if type(record) is SessionsTouched:
            # What the log tells need not be told to the log again.
            self._table.drain_touched(len(record.touches))
        self._forget()
        self._replayed += 1
        if self._replayed % REPLAY_ADVANCE_RECORDS == 0:
            reached_ms = min(record.time_ms - REPLAY_SLACK_MS, self._replay_until_ms)
            # Bounded: each call leaves fewer entries due, of at most as many as the table holds.
            while reached_ms > 0 and self._table.advance(reached_ms, _ADVANCE_BUDGET) > 0:
                pass
        return outcome

    def _forget(self) -> None:
        while self._table.forgetting:
            self._table.forget(_ADVANCE_BUDGET)

    def _session_created(self, record: SessionCreated) -> int:
        table = self._table
        outcome = table.begin(record)
        # A session that could not begin makes no other one end.
        if record.evicts and outcome == _INSERTED:
            for session_id in record.evicts:
                table.revoke(session_id, record.time_ms)
        return outcome

    def _session_renewed(self, record: SessionRenewed) -> int:
        return self._table.renew(record.session_id, record.expires_at_ms, record.time_ms)

    def _session_updated(self, record: SessionUpdated) -> int:
        return self._table.update(record.session_id, record.data, record.time_ms)

    def _sessions_revoked(self, record: SessionsRevoked) -> int:
        revoke, time_ms = self._table.revoke, record.time_ms
        return sum(revoke(session_id, time_ms) == _DONE for session_id in record.session_ids)

    def _token_rotated(self, record: TokenRotated) -> int:
        return self._table.rotate(record.session_id, record.token_hash, record.old_valid_until_ms, record.time_ms)

    def _sessions_touched(self, record: SessionsTouched) -> int:
        if record.drained:
            return 0
        touch = self._table.touch
        for session_id, last_active_ms, ip_address, user_agent in record.touches:
            touch(session_id, last_active_ms, ip_address, user_agent)
        return 0

    def _session_stated(self, record: SessionStated) -> int:
        table, session_id = self._table, record.session_id
        entry = table.find(session_id)
        if entry < 0:
            outcome = self._insert_stated(record)
            created = True
        else:
            outcome = self._bring_up(entry, record)
            created = False
        if outcome in (_INSERTED, _DONE):
            if record.version != 1 or not created:
                table.set_version(session_id, record.version)
            if record.last_active_ms > record.created_at_ms:
                table.touch(session_id, record.last_active_ms)
        return outcome

    def _insert_stated(self, record: SessionStated) -> int:
        table = self._table
        first_hash = record.old_token_hash or record.token_hash
        outcome = table.insert(
            record.session_id,
            first_hash,
            record.user_id,
            record.device_id,
            record.ip_address,
            record.user_agent,
            record.created_by,
            record.created_at_ms,
            record.expires_at_ms,
            record.idle_seconds,
            record.data,
        )
        if outcome == _INSERTED and record.old_token_hash:
            table.rotate(record.session_id, record.token_hash, record.old_valid_until_ms, record.time_ms)
        return outcome

    def _bring_up(self, entry: int, record: SessionStated) -> int:
        """A session that is there becomes what is stated. A revoked one stays so."""
        table, session_id, time_ms = self._table, record.session_id, record.time_ms
        view = table.session(entry)
        outcome = table.renew(session_id, record.expires_at_ms, time_ms)
        if outcome == _DONE and view.data != record.data:
            outcome = table.update(session_id, record.data, time_ms)
        token_hash = table.hashes(entry)[0]
        if outcome == _DONE and token_hash != record.token_hash:
            if record.old_token_hash not in (b"", token_hash):
                # Rotated more than once since: the one in its grace is another than this node had, which has none any more.
                table.rotate(session_id, record.old_token_hash, time_ms, time_ms)
            outcome = table.rotate(session_id, record.token_hash, record.old_valid_until_ms, time_ms)
        return outcome

    def _session_held(self, record: SessionHeld) -> int:
        self.following.hold(record)
        return _DONE if record.stated is None else self._session_stated(record.stated)

    def _key_stated(self, record: KeyStated) -> int:
        changed = self._keyring.apply_created(record.created)
        return self._keyring.apply_status(KeyStatusChanged(record.time_ms, record.created.key_id, record.active)) or changed

    def _streamed(self, record: Streamed) -> int:
        """What the stream holds is another machine's bytes: what means nothing here is passed over, not died of."""
        if not self.following.accepts(record):
            return -1
        try:
            inner = decode_enveloped(record.envelope)
            apply = self._apply_by_type[type(inner)]
        except (RecordError, KeyError):
            self.following.pass_over(record.position)
            return -1
        if isinstance(inner, Streamed | StreamBound | ShardsHeld | ShardLoaded):  # a node's own
            self.following.pass_over(record.position)
            return -1
        kept = self._kept(inner)
        try:
            # Of revocations elsewhere none ended a session here, which is an outcome; what became of any other is not known here.
            outcome = apply(kept) if kept is not None else 0 if isinstance(inner, SessionsRevoked) else -1
        except (ValueError, OverflowError):  # values that no node of this release states: no node of it can take them
            self.following.pass_over(record.position)
            return -1
        self.following.advance(record.position, record.time_ms, inner)
        if outcome == _TOKEN_EXISTS and isinstance(inner, SessionStated) and self._is_tokenless(inner):
            self.following.tokenless.add(inner.session_id)
        return outcome

    def _is_tokenless(self, record: SessionStated) -> bool:
        """Of a session whose token another has. What begins comes after that one; of what was changed since it began this node may
        know the order wrongly. A token that is only remembered here, of a session that has expired, may be free elsewhere, where
        clocks are ahead.
        """
        return record.version == 1 and self._table.find_token(record.token_hash, record.time_ms)[0] == _VALID

    def _kept(self, record: AnyRecord) -> AnyRecord | None:
        """What of a record of the stream is of this node; None: nothing."""
        following = self.following
        if following.held == ALL_SHARDS:
            return record
        if isinstance(record, SessionStated | SessionHeld):
            return record if following.turn((record.session_id,)) else None
        if isinstance(record, SessionsRevoked):
            session_ids = following.turn(record.session_ids)
            return SessionsRevoked(record.time_ms, session_ids) if session_ids else None
        return record

    def _shard_loaded(self, record: ShardLoaded) -> int:
        try:
            inner = decode_enveloped(record.envelope)
            if isinstance(inner, SessionsRevoked):  # what has ended is not there, unless a replica that was behind gave it before
                awaited = [each for each in inner.session_ids if self.following.awaits(each)]
                return self._sessions_revoked(SessionsRevoked(inner.time_ms, awaited))
            if not isinstance(inner, SessionStated | SessionHeld) or not self.following.awaits(inner.session_id):
                return -1
            outcome = self._apply_by_type[type(inner)](inner)
        except (ValueError, OverflowError):  # also RecordError: as in its turn, but counted there
            return -1
        self.following.note_loaded(record, inner.session_id)
        return outcome

    def _shards_held(self, record: ShardsHeld) -> int:
        dropped = self.following.set_shards(record)
        if dropped:
            self._table.begin_forgetting(dropped)
        return int(dropped != 0)

    def _stream_bound(self, record: StreamBound) -> int:
        self.following.bind(record)
        return 1


def _nothing(record: PlaceStated) -> int:
    """It says where nodes compare; `Following` notes it."""
    return 0
