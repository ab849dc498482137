"""The members as one node sees them."""

from tests.cluster.hand_made import MS, SECOND, SELF, T0, B, C, HandMade
from tokmesh.cluster.quorum import Figures
from tokmesh.cluster.status import DOWN_AFTER_NS, MemberStatus, member_statuses


def status_of(node: HandMade, node_id: str, now_ns: int) -> MemberStatus:
    return next(each for each in member_statuses(node.quorum, Figures(9, 1, "2.0"), now_ns) if each.node_id == node_id)


def test_every_member_is_listed_once_in_order() -> None:
    node = HandMade((C, B))
    node.hear("tmnd-x", T0)
    assert [each.node_id for each in member_statuses(node.quorum, Figures(), T0)] == [SELF, B, C]


def test_we_are_active_and_without_lag() -> None:
    own = status_of(HandMade((B, C), applied=10, incarnation=4), SELF, T0 + 9 * SECOND)
    assert own == MemberStatus(SELF, "active", True, 0, 4, 10, True, Figures(9, 1, "2.0"), 0, 0, 0)


def test_a_member_never_heard_is_down_and_unknown() -> None:
    other = status_of(HandMade((B, C)), B, T0)
    assert (other.state, other.silent_ns, other.applied, other.incarnation, other.lag_from_ns) == ("down", None, None, None, None)


def test_a_member_is_down_when_it_has_been_silent_for_two_seconds() -> None:
    node = HandMade((B, C))
    node.hear(B, T0, node.send(T0)._replace(age_ns=0), applied=10, incarnation=5)
    at_bound = status_of(node, B, T0 + DOWN_AFTER_NS)
    assert (at_bound.state, at_bound.silent_ns, at_bound.incarnation) == ("active", DOWN_AFTER_NS, 5)
    assert at_bound.figures == Figures(3, 2, "1.0")
    assert status_of(node, B, T0 + DOWN_AFTER_NS + 1).state == "down"


def test_a_member_that_said_it_ends_is_down_at_once_and_active_by_its_next_start() -> None:
    node = HandMade((B, C))
    node.hear(B, T0, applied=10, incarnation=5)
    last = node.quorum.peers[B].beat
    node.quorum.hear(last._replace(number=last.number + 1, leaving=True), T0 + MS)
    assert (status_of(node, B, T0 + MS).state, status_of(node, B, T0 + MS).silent_ns) == ("down", 0)
    node.hear(B, T0 + 2 * MS, applied=10, incarnation=6)
    assert status_of(node, B, T0 + 2 * MS).state == "active"


def test_lag_from_a_peer_is_how_long_we_have_been_lacking_what_it_told() -> None:
    node = HandMade((B, C), applied=10)
    node.hear(B, T0, applied=10)
    node.hear(B, T0 + 100 * MS, applied=12)
    node.hear(B, T0 + 200 * MS, applied=15)
    now_ns = T0 + 300 * MS
    assert status_of(node, B, now_ns).lag_from_ns == 200 * MS
    node.quorum.advance(12, True, now_ns)
    assert status_of(node, B, now_ns).lag_from_ns == 100 * MS
    node.quorum.advance(15, True, now_ns)
    assert status_of(node, B, now_ns).lag_from_ns == 0


def test_lag_to_a_peer_is_how_long_ago_we_applied_what_it_lacks() -> None:
    node = HandMade((B, C), applied=10)
    node.hear(B, T0, applied=10)
    assert status_of(node, B, T0 + SECOND).lag_to_ns == 0
    node.quorum.advance(11, True, T0 + 100 * MS)
    node.quorum.advance(12, True, T0 + 200 * MS)
    assert status_of(node, B, T0 + 300 * MS).lag_to_ns == 200 * MS
    node.hear(B, T0 + 300 * MS, applied=11)
    assert status_of(node, B, T0 + 300 * MS).lag_to_ns == 100 * MS
    node.hear(B, T0 + 300 * MS, applied=99)
    assert status_of(node, B, T0 + 300 * MS).lag_to_ns == 0
