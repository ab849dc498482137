"""A Table and its model, driven together: every operation goes to both, and every answer must be the same."""

import hashlib
import json

import orjson

from tests.model.table_model import ModelSession, TableModel, ulid
from tokmesh._core.table import SESSION_JSON_BYTES_MAX, Outcome, Table, Verdict
from tokmesh._core.views import Status

BUDGET = 1 << 40


def id_of(number: int) -> bytes:
    return hashlib.blake2b(b"id %d" % number, digest_size=16).digest()


def hash_of(number: int) -> bytes:
    return hashlib.sha256(b"token %d" % number).digest()


def expected_json(session: ModelSession) -> bytes:
    fields = session.view()._asdict()
    del fields["idle_seconds"]
    fields["id"] = "tmss-" + ulid(session.id)
    fields["data"] = json.loads(session.data)
    return orjson.dumps(fields)


class TablePair:
    """Small numbers name ids and tokens, so that they meet again."""

    def __init__(self, tombstone_ttl_ms: int = 30_000, start_ms: int = 1_700_000_000_000, entries_max: int = 1 << 20) -> None:
        self.table = Table(tombstone_ttl_ms=tombstone_ttl_ms, seed=b"model", entries_max=entries_max, arena_bytes_max=1 << 30)
        self.model = TableModel(tombstone_ttl_ms)
        self.now_ms = start_ms

    def insert(
        self, id_number: int, token_number: int, user_id: str, device_id: str, ip_address: str, user_agent: str, ttl_ms: int,
        idle_seconds: int, data: bytes,
    ) -> Outcome:  # fmt: skip
        args = (
            id_of(id_number), hash_of(token_number), user_id, device_id, ip_address, user_agent, "tmak-1", self.now_ms,
            self.now_ms + ttl_ms, idle_seconds, data,
        )  # fmt: skip
        return self._same(self.table.insert(*args), self.model.insert(*args))

    def renew(self, id_number: int, ttl_ms: int) -> Outcome:
        args = (id_of(id_number), self.now_ms + ttl_ms, self.now_ms)
        return self._same(self.table.renew(*args), self.model.renew(*args))

    def update(self, id_number: int, data: bytes) -> Outcome:
        args = (id_of(id_number), data, self.now_ms)
        return self._same(self.table.update(*args), self.model.update(*args))

    def rotate(self, id_number: int, token_number: int, grace_ms: int) -> Outcome:
        args = (id_of(id_number), hash_of(token_number), self.now_ms + grace_ms, self.now_ms)
        return self._same(self.table.rotate(*args), self.model.rotate(*args))

    def revoke(self, id_number: int) -> Outcome:
        args = (id_of(id_number), self.now_ms)
        return self._same(self.table.revoke(*args), self.model.revoke(*args))

    def touch(self, id_number: int, back_ms: int, ip_address: str | None, user_agent: str | None) -> Outcome:
        args = (id_of(id_number), self.now_ms - back_ms, ip_address, user_agent)
        return self._same(self.table.touch(*args), self.model.touch(*args))

    def validate(self, token_number: int, touch: bool) -> Verdict:
        token_hash = hash_of(token_number)
        verdict, answer = self.table.check(token_hash, self.now_ms, self.now_ms if touch else 0)
        expected, session = self.model.verdict(token_hash, self.now_ms)
        assert verdict == expected
        if expected == Verdict.VERDICT_VALID:
            assert session is not None
            if touch:
                self.model.touch(session.id, self.now_ms)
            assert answer == expected_json(session)
        else:
            assert answer == b""
        return expected

    def pass_time(self, milliseconds: int, budget: int = BUDGET) -> None:
        """Sweeps to the end, `budget` entries at a time."""
        self.now_ms += milliseconds
        self.model.advance(self.now_ms)
        while left := self.table.advance(self.now_ms, budget):
            assert self.table.stats()["expiry_backlog"] == left
        assert self.table.stats()["sessions_active"] == self.model.live_count()

    def drain(self, limit: int = 1 << 30) -> None:
        drained = {}
        while rows := self.table.drain_touched(limit):
            assert len(rows) <= limit
            drained.update({session_id: (active, ip, agent) for session_id, active, ip, agent in rows})
        assert drained == self.model.drain_touched()

    def check_session(self, id_number: int) -> None:
        session = self.model.sessions.get(id_of(id_number))
        entry = self.table.find(id_of(id_number))
        assert (entry == -1) == (session is None)
        if session is None:
            return
        assert self.table.session(entry) == session.view()
        text = self.table.session_json(entry)
        assert text == expected_json(session)
        assert len(text) <= SESSION_JSON_BYTES_MAX
        status = session.state
        if status == Status.LIVE and session.deadline() <= self.now_ms:
            status = Status.EXPIRED
        assert self.table.status(entry, self.now_ms) == status

    def check_token(self, token_number: int) -> None:
        token_hash = hash_of(token_number)
        expected, session = self.model.verdict(token_hash, self.now_ms)
        entry = self.table.find(session.id) if session is not None else -1
        assert self.table.find_token(token_hash, self.now_ms) == (expected, entry)
        assert self.table.token_known(token_hash) == (token_hash in self.model.tokens)

    def check_lists(self, user_id: str, device_id: str) -> None:
        def ids(entries: list[int]) -> list[bytes]:
            return [self.table.session(entry).id for entry in entries]

        assert ids(self.table.user_entries(user_id)) == self.model.newest_first("user_id", user_id)
        expired = self.model.newest_first("user_id", user_id, Status.EXPIRED)
        assert sorted(ids(self.table.user_entries(user_id, expired=True))) == sorted(expired)
        assert ids(self.table.device_entries(device_id)) == self.model.newest_first("device_id", device_id)

    def check_all(self, scan_limit: int = 7) -> None:
        """Everything there is, by every way to it."""
        live: list[int] = []
        cursor = 0
        while cursor != -1:
            page, cursor = self.table.scan(cursor, scan_limit)
            assert len(page) <= scan_limit
            live += page
        assert live == sorted(live)
        found = {self.table.session(entry).id for entry in live}
        assert found == {s.id for s in self.model.sessions.values() if s.state == Status.LIVE}
        stats = self.table.stats()
        assert stats["sessions_active"] == self.model.live_count() == len(live)
        assert self.table.shard_counts() == [sum(each[15] % 64 == shard for each in found) for shard in range(64)]
        assert stats["tombstones"] == len(self.model.sessions) - len(live)
        assert stats["aliases"] == len(self.model.tokens) - len(self.model.sessions)
        assert stats["entries_used"] == len(self.model.tokens)
        agents = {(s.user_agent, s.last_access_ua) for s in self.model.sessions.values()}
        strings = {text for pair in agents for text in pair if text} | {s.created_by for s in self.model.sessions.values()}
        assert stats["interned_strings"] == len(strings)
        assert stats["index_load"] <= 0.75 + 1 / 64

    def _same(self, outcome: int, expected: Outcome) -> Outcome:
        assert outcome == expected, (Outcome(outcome), expected)
        return expected
