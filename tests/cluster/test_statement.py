"""How long the stream keeps what is stated of a session: until every end that any node can know of it is past."""

from typing import Final

import pytest

from tests.unit.test_following import HOUR_MS, T0, Node, stated, ulid
from tokmesh.cluster.statement import SLACK_MS, UNCONDITIONAL, Statement, Stating
from tokmesh.cluster.subjects import Subjects
from tokmesh.log import record as r

TOMBSTONE_MS: Final = 600_000
LIFE_MS_MAX: Final = 30 * 24 * HOUR_MS
MINUTE_MS: Final = 60_000


class Stater(Node):
    """A node that states changes, and takes them from the stream at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stating = Stating(Subjects("test"), self.table, self.keyring, self.store.following, TOMBSTONE_MS, LIFE_MS_MAX)

    def change(self, record: r.AnyRecord) -> Statement:
        (found,) = self.stating.of(record)
        self.stream(self.store.following.position + 1, found.record)
        return found


def kept_until_ms(statement: Statement) -> int:
    """The end for which the stream keeps it, without what is kept beyond every end."""
    return statement.record.time_ms + statement.ttl_ms - TOMBSTONE_MS - SLACK_MS


@pytest.fixture
def node() -> Stater:
    """With a session that lives for an hour."""
    node = Stater()
    node.stream(1, stated(1))
    return node


def test_a_session_is_kept_until_its_end(node: Stater) -> None:
    found = node.change(r.SessionRenewed(T0 + 1, ulid(1), T0 + 2 * HOUR_MS))
    assert isinstance(found.record, r.SessionStated)
    assert (kept_until_ms(found), found.expected) == (T0 + 2 * HOUR_MS, 1)


def test_what_is_stated_after_a_life_was_made_shorter_is_kept_until_its_longest_end(node: Stater) -> None:
    """A node that was stopped before knows the session as good for an hour: what came since must be there when it is back."""
    for time_ms, record in (
        (T0 + 1, r.SessionRenewed(T0 + 1, ulid(1), T0 + 10 * MINUTE_MS)),
        (T0 + 2, r.SessionRenewed(T0 + 2, ulid(1), T0 + 5 * MINUTE_MS)),
        (T0 + 3, r.SessionUpdated(T0 + 3, ulid(1), b'{"a":"b"}')),
        (T0 + 4, r.TokenRotated(T0 + 4, ulid(1), b"n" * 32, T0 + MINUTE_MS)),
    ):
        found = node.change(record)
        assert isinstance(found.record, r.SessionHeld) and found.record.stated is not None
        assert (found.record.time_ms, found.record.held_until_ms) == (time_ms, T0 + HOUR_MS)
        assert kept_until_ms(found) == T0 + HOUR_MS
        assert node.table.session(node.table.find(ulid(1))).expires_at == found.record.stated.expires_at_ms < T0 + HOUR_MS
    again = node.stating.session(node.table.find(ulid(1)), T0 + 5)
    assert isinstance(again.record, r.SessionHeld) and again.record.held_until_ms == T0 + HOUR_MS, "as a reseeded stream has it"
    revoked = node.change(r.SessionsRevoked(T0 + 6, [ulid(1)]))
    assert (kept_until_ms(revoked), revoked.expected) == (T0 + HOUR_MS, UNCONDITIONAL)


def test_a_life_made_longer_than_it_ever_was_holds_nothing_back(node: Stater) -> None:
    node.change(r.SessionRenewed(T0 + 1, ulid(1), T0 + MINUTE_MS))
    found = node.change(r.SessionRenewed(T0 + 2, ulid(1), T0 + 3 * HOUR_MS))
    assert isinstance(found.record, r.SessionStated) and kept_until_ms(found) == T0 + 3 * HOUR_MS


def test_a_node_that_begins_with_the_shorter_life_alone_goes_on_holding_the_longer_one(node: Stater) -> None:
    last = node.change(r.SessionRenewed(T0 + 1, ulid(1), T0 + MINUTE_MS))
    fresh = Stater()
    fresh.stream(2, last.record)
    assert kept_until_ms(fresh.change(r.SessionsRevoked(T0 + 2, [ulid(1)]))) == T0 + HOUR_MS


def test_a_revocation_is_kept_too_briefly_when_another_node_made_the_life_longer_just_before_it(node: Stater) -> None:
    (revoked,) = node.stating.of(r.SessionsRevoked(T0 + 2, [ulid(1)]))
    assert node.stating.outliving(revoked) == []
    renewal = Stater()
    renewal.stream(1, stated(1))
    node.stream(2, renewal.change(r.SessionRenewed(T0 + 1, ulid(1), T0 + LIFE_MS_MAX)).record)
    node.stream(3, revoked.record)
    assert kept_until_ms(revoked) == T0 + HOUR_MS and node.stating.outliving(revoked) == [ulid(1)]
    again = node.stating.revocation(ulid(1), T0 + 3)
    assert kept_until_ms(again) == T0 + LIFE_MS_MAX and node.stating.outliving(again) == []


def test_a_revocation_of_what_has_been_forgotten_since_is_not_too_brief(node: Stater) -> None:
    (revoked,) = node.stating.of(r.SessionsRevoked(T0 + 2, [ulid(1)]))
    while node.table.advance(T0 + HOUR_MS + TOMBSTONE_MS + 2_000, 1000):
        pass
    assert node.table.find(ulid(1)) < 0 and node.stating.outliving(revoked) == []


def test_a_revocation_of_what_is_not_known_here_is_kept_for_as_long_as_any_session_may_live() -> None:
    assert kept_until_ms(Stater().stating.revocation(ulid(9), T0)) == T0 + LIFE_MS_MAX
