"""From a record that says a change to the records of the stream, each of which says all of one thing.

A change was decided against the table as it is in this moment; what is stated is that table with the change made, and holds only if
nobody has stated anything else since (`expected`). A revocation holds in any case.

The stream keeps a record until the latest end that was ever stated of its session is past, also when the session's life has been
made shorter since (SessionHeld says so): a node that was away may know it by any of those ends, and must find here that it is over.
"""

from typing import Final, NamedTuple

from tokmesh._core.table import Table
from tokmesh.cluster.subjects import Subjects
from tokmesh.following import Following
from tokmesh.ids import format_key_id
from tokmesh.keyring import KeyRing
from tokmesh.log.record import (
    AnyRecord,
    KeyCreated,
    KeyStated,
    KeyStatusChanged,
    SessionCreated,
    SessionHeld,
    SessionRenewed,
    SessionsRevoked,
    SessionStated,
    SessionUpdated,
    TokenRotated,
)

UNCONDITIONAL: Final = -1
UNKNOWN: Final = -2  # the stream must be asked which sequence the subject has
# What the stream keeps beyond a session's end, so that nodes whose clocks differ agree on what it was.
SLACK_MS: Final = 60_000


class Statement(NamedTuple):
    """One message. expected: sequence that the last record of the subject must have, 0 for none, or UNCONDITIONAL, UNKNOWN; ttl_ms:
    how long the stream keeps it, 0: for ever; conflict: the error code when it is not as expected."""

    subject: str
    record: AnyRecord
    expected: int
    ttl_ms: int
    conflict: str


def lifetime(ttl_ms: int) -> dict[str, str]:
    """The header that says how long the stream keeps a message, in whole seconds and no less; none for ever (0)."""
    return {"Nats-TTL": f"{-(-ttl_ms // 1000)}s"} if ttl_ms else {}


class Stating:
    """Statements of this node's table and keys. tombstone_ttl_ms: as in the configuration; life_ms_max: of any session."""

    def __init__(
        self, subjects: Subjects, table: Table, keyring: KeyRing, following: Following, tombstone_ttl_ms: int, life_ms_max: int
    ) -> None:
        self._subjects = subjects
        self._table = table
        self._keyring = keyring
        self._following = following
        self._tombstone_ttl_ms = tombstone_ttl_ms
        self._life_ms_max = life_ms_max

    def of(self, record: AnyRecord) -> list[Statement]:
        """What is to be published for a record, on the loop's thread, in the turn in which it was decided on."""
        if isinstance(record, SessionCreated):
            return [self._created(record), *(self.revocation(each, record.time_ms) for each in record.evicts)]
        if isinstance(record, SessionsRevoked):
            return [self.revocation(each, record.time_ms) for each in record.session_ids]
        if isinstance(record, SessionRenewed | SessionUpdated | TokenRotated):
            return [self._changed(record)]
        if isinstance(record, KeyCreated):
            return [Statement(self._subjects.key(record.key_id), KeyStated(record.time_ms, True, record), 0, 0, "TM-ADMIN-4091")]
        assert isinstance(record, KeyStatusChanged), type(record).__name__
        return [self._key(record)]

    def revocation(self, session_id: bytes, time_ms: int) -> Statement:
        """Kept for the rest of the session's life: what was published before it cannot come after it, whatever happens."""
        entry = self._table.find(session_id)
        ends_ms = self._table.session(entry).expires_at if entry >= 0 else time_ms + self._life_ms_max
        ends_ms = max(ends_ms, self._following.held_until_ms(session_id))
        record = SessionsRevoked(time_ms, (session_id,))
        return Statement(self._subjects.session(session_id), record, UNCONDITIONAL, self._ttl_ms(ends_ms, time_ms), "")

    def outliving(self, revocation: Statement) -> list[bytes]:
        """Those of its sessions whose life, as it is known now, is longer than the stream keeps it: another node may have made it
        longer meanwhile, and who has that and comes back later must find that it is over."""
        assert isinstance(revocation.record, SessionsRevoked)
        known = [each for each in revocation.record.session_ids if self._table.find(each) >= 0]
        return [each for each in known if self.revocation(each, revocation.record.time_ms).ttl_ms > revocation.ttl_ms]

    def session(self, entry: int, time_ms: int) -> Statement:
        """The session at a table entry as it is, where the stream has nothing of it."""
        view = self._table.session(entry)
        token_hash, old_hash, old_until_ms = self._table.hashes(entry)
        stated = SessionStated(
            view.last_active, view.id, token_hash, old_hash, old_until_ms, view.created_at, view.expires_at, view.last_active,
            view.version, view.idle_seconds, view.user_id, view.device_id, view.ip_address, view.user_agent, view.created_by,
            view.data,
        )  # fmt: skip
        return self._stated(stated, self._following.held_until_ms(view.id), 0, time_ms, "")

    def _created(self, record: SessionCreated) -> Statement:
        stated = SessionStated(
            record.time_ms, record.session_id, record.token_hash, b"", 0, record.time_ms, record.expires_at_ms, record.time_ms, 1,
            record.idle_seconds, record.user_id, record.device_id, record.ip_address, record.user_agent, record.created_by,
            record.data,
        )  # fmt: skip
        return self._stated(stated, 0, 0, record.time_ms, "TM-SESS-4090")

    def _changed(self, record: SessionRenewed | SessionUpdated | TokenRotated) -> Statement:
        entry = self._table.find(record.session_id)
        assert entry >= 0, "decided in this turn"
        view = self._table.session(entry)
        token_hash, old_hash, old_until_ms = self._table.hashes(entry)
        expires_at_ms, data, conflict = view.expires_at, view.data, "TM-SESS-4091"
        if isinstance(record, SessionRenewed):
            expires_at_ms = record.expires_at_ms
        elif isinstance(record, SessionUpdated):
            data = record.data
        else:
            token_hash, old_hash, old_until_ms = record.token_hash, token_hash, record.old_valid_until_ms
            conflict = "TM-TOKN-4090"
        time_ms = record.time_ms
        stated = SessionStated(
            time_ms, view.id, token_hash, old_hash, old_until_ms, view.created_at, expires_at_ms, max(view.last_active, time_ms),
            view.version + 1, view.idle_seconds, view.user_id, view.device_id, view.ip_address, view.user_agent, view.created_by,
            data,
        )  # fmt: skip
        expected = self._following.sequence_of_entry(entry) or UNKNOWN
        held_until_ms = max(view.expires_at, self._following.held_until_ms(view.id))
        return self._stated(stated, held_until_ms, expected, time_ms, conflict)

    def _stated(self, stated: SessionStated, held_until_ms: int, expected: int, now_ms: int, conflict: str) -> Statement:
        """held_until_ms: the latest end stated so far, 0 for none."""
        record: SessionStated | SessionHeld = stated
        if held_until_ms > stated.expires_at_ms:
            record = SessionHeld(stated.time_ms, stated.session_id, held_until_ms, stated)
        ttl_ms = self._ttl_ms(max(held_until_ms, stated.expires_at_ms), now_ms)
        return Statement(self._subjects.session(stated.session_id), record, expected, ttl_ms, conflict)

    def _key(self, record: KeyStatusChanged) -> Statement:
        stored = self._keyring.get(format_key_id(record.key_id))
        assert stored is not None, "decided in this turn"
        stated = KeyStated(record.time_ms, record.active, stored.created_record())
        expected = self._following.sequence_of_key(record.key_id) or UNKNOWN
        return Statement(self._subjects.key(record.key_id), stated, expected, 0, "TM-ADMIN-4091")

    def _ttl_ms(self, expires_at_ms: int, time_ms: int) -> int:
        return max(expires_at_ms - time_ms, 0) + self._tombstone_ttl_ms + SLACK_MS
