"""What one node may say by the beats it hears: each rule of tokmesh.cluster.quorum, on both sides."""

import pytest

from tests.cluster.hand_made import MS, SECOND, SELF, STALENESS_NS, T0, B, C, D, E, HandMade
from tokmesh.cluster.beat import Echo
from tokmesh.cluster.quorum import SENT_MAX, WRITE_WITHIN_NS, Figures
from tokmesh.ids import MEMBERS_MAX


def test_an_echo_vouches_for_when_our_beat_was_sent_not_for_when_it_came_back() -> None:
    node = HandMade((B, C))
    echo = node.send(T0)
    node.hear(B, T0 + 300 * MS, echo)
    assert node.quorum.current_as_of_ns(T0 + 300 * MS) == T0
    assert node.quorum.fresh_until_ns(T0 + 300 * MS) == T0 + STALENESS_NS


def test_nothing_is_proved_by_beats_without_an_echo_of_ours() -> None:
    node = HandMade((B, C))
    echo = node.send(T0)
    node.hear(B, T0)
    node.hear(B, T0, notice=True)
    node.hear(B, T0, echo._replace(node_id=C))
    node.hear(B, T0, echo._replace(incarnation=echo.incarnation - 1))
    node.hear(B, T0, echo._replace(number=echo.number + 1))
    assert node.quorum.current_as_of_ns(T0) is None
    node.hear(B, T0, Echo(C, 1, 1, 0), echo)
    assert node.quorum.current_as_of_ns(T0) == T0


def test_a_vouch_waits_until_we_have_applied_what_its_beat_told() -> None:
    node = HandMade((B, C), applied=10)
    node.hear(B, T0, node.send(T0), applied=11)
    assert node.quorum.current_as_of_ns(T0) is None
    node.quorum.advance(11, True, T0 + SECOND)
    assert node.quorum.current_as_of_ns(T0 + SECOND) == T0


def test_a_node_that_lags_is_current_as_of_what_it_has_caught_up_with() -> None:
    node = HandMade((B, C), applied=10)
    for step in range(8):
        node.hear(B, T0 + step * 100 * MS, node.send(T0 + step * 100 * MS), applied=10 + step)
    for step in range(8):
        node.quorum.advance(10 + step, True, T0 + SECOND)
        assert node.quorum.current_as_of_ns(T0 + SECOND) == T0 + step * 100 * MS


def test_a_peer_that_is_not_counted_vouches_for_nothing() -> None:
    node = HandMade((B, C))
    node.hear(B, T0, node.send(T0), counted=False)
    assert node.quorum.current_as_of_ns(T0) is None


def test_a_node_that_is_not_counted_is_not_current_whoever_vouches() -> None:
    node = HandMade((B, C), counted=False)
    node.prove(T0, B, C)
    assert node.quorum.current_as_of_ns(T0) is None
    assert node.quorum.fresh_until_ns(T0) is None
    node.quorum.advance(11, True, T0)
    assert node.quorum.current_as_of_ns(T0) == T0


@pytest.mark.parametrize(("others", "needed"), [((B,), 1), ((B, C), 1), ((B, C, D), 2), ((B, C, D, E), 2)])
def test_a_proof_takes_a_majority_with_ourselves(others: tuple[str, ...], needed: int) -> None:
    node = HandMade(others)
    node.prove(T0, *others[: needed - 1])
    assert node.quorum.current_as_of_ns(T0) is None
    node.prove(T0, others[needed - 1])
    assert node.quorum.current_as_of_ns(T0) == T0


def test_current_is_as_of_the_oldest_vouch_of_the_best_majority() -> None:
    node = HandMade((B, C, D, E))
    node.prove(T0, B)
    node.prove(T0 + 10, C)
    node.prove(T0 + 20, D)
    assert node.quorum.current_as_of_ns(T0 + 20) == T0 + 10


def test_a_lone_counted_member_is_always_current() -> None:
    node = HandMade(())
    assert node.quorum.current_as_of_ns(T0 + 5 * SECOND) == T0 + 5 * SECOND
    assert node.quorum.may_write(T0 + 5 * SECOND)
    assert HandMade((), counted=False).quorum.current_as_of_ns(T0) is None


def test_writes_end_a_second_after_the_last_proof() -> None:
    node = HandMade((B, C))
    assert not node.quorum.may_write(T0)
    node.prove(T0, B)
    assert node.quorum.may_write(T0 + WRITE_WITHIN_NS)
    assert not node.quorum.may_write(T0 + WRITE_WITHIN_NS + 1)


def test_beats_heard_twice_or_out_of_order_change_nothing() -> None:
    node = HandMade((B, C))
    node.hear(B, T0, number=5)
    heard_ns = node.quorum.peers[B].heard_ns
    for number in (5, 4):
        assert node.hear(B, T0 + SECOND, node.send(T0 + SECOND), number=number, applied=99) == []
    assert node.quorum.peers[B].heard_ns == heard_ns
    assert node.quorum.peers[B].applied == 10
    assert node.quorum.current_as_of_ns(T0 + SECOND) is None


def test_an_older_incarnation_says_nothing_of_the_present() -> None:
    node = HandMade((B, C))
    node.hear(B, T0, incarnation=2, number=1, applied=3)
    node.hear(B, T0 + 1, node.send(T0), incarnation=1, number=900, applied=10)
    peer = node.quorum.peers[B]
    assert (peer.beat.incarnation, peer.applied, peer.heard_ns) == (2, 3, T0)
    assert node.quorum.majority_applied == 3
    assert node.quorum.current_as_of_ns(T0) is None


def test_a_newer_incarnation_begins_anew() -> None:
    node = HandMade((B, C))
    node.hear(B, T0, node.send(T0), number=900, applied=10)
    assert node.quorum.current_as_of_ns(T0) == T0
    node.hear(B, T0 + 1, incarnation=2, number=1, applied=3, counted=False)
    assert node.quorum.peers[B].applied == 3
    assert node.quorum.current_as_of_ns(T0 + 1) == T0, "what was proved stays true, and nothing later is"


def test_what_a_peer_has_told_to_have_applied_never_falls_in_an_incarnation() -> None:
    node = HandMade((B, C), applied=10)
    node.hear(B, T0, applied=11)
    node.hear(B, T0, node.send(T0), applied=4)
    assert node.quorum.peers[B].applied == 11
    assert node.quorum.current_as_of_ns(T0) is None


def test_strangers_vouch_for_nothing_and_are_not_remembered() -> None:
    node = HandMade((B, C))
    for index in range(3):
        assert node.hear(f"tmnd-x{index}", T0 + index, node.send(T0)) == []
    assert node.quorum.peers == {}
    assert node.quorum.current_as_of_ns(T0) is None


def test_a_younger_process_with_our_node_id_ends_what_we_may_say() -> None:
    node = HandMade((B, C), incarnation=2)
    node.prove(T0, B)
    node.hear(SELF, T0, incarnation=1)
    node.hear(SELF, T0, incarnation=2)
    assert not node.quorum.is_superseded
    node.hear(SELF, T0, incarnation=3)
    assert node.quorum.is_superseded
    assert node.quorum.fresh_until_ns(T0) is None


def test_a_removed_member_is_forgotten_at_once() -> None:
    node = HandMade((B, C))
    node.prove(T0, B)
    node.quorum.set_members({SELF, C}, T0)
    assert node.quorum.current_as_of_ns(T0 + 9) == T0, "what was proved stays true, and nothing later is"
    assert B not in {echo.node_id for echo in node.quorum.make_beat(T0, notice=False, figures=Figures()).echoes}
    node.quorum.set_members({SELF, B, C}, T0)
    assert node.quorum.current_as_of_ns(T0 + 9) == T0


def test_a_node_that_grows_from_one_to_two_stays_current_as_of_the_moment_before() -> None:
    node = HandMade(())
    assert node.quorum.current_as_of_ns(T0) == T0
    node.quorum.set_members({SELF, B}, T0 + 5)
    assert node.quorum.current_as_of_ns(T0 + 9) == T0 + 5


def test_a_node_that_is_no_member_may_say_nothing() -> None:
    node = HandMade((B, C))
    node.prove(T0, B, C)
    node.quorum.set_members({B, C}, T0)
    assert node.quorum.current_as_of_ns(T0) is None


def test_members_have_a_bound() -> None:
    node = HandMade((B, C))
    most = {SELF, *(f"tmnd-x{index}" for index in range(MEMBERS_MAX - 1))}
    node.quorum.set_members(most, T0)
    assert node.quorum.majority == MEMBERS_MAX // 2 + 1
    with pytest.raises(ValueError, match="at most 64"):
        node.quorum.set_members({*most, B}, T0)


def test_acknowledged_is_what_a_counted_majority_and_we_have_applied() -> None:
    node = HandMade((B, C, D, E), applied=10)
    node.hear(B, T0, applied=12, notice=True)
    node.hear(C, T0, applied=12, counted=False)
    assert node.quorum.majority_applied == 0
    node.hear(D, T0, applied=8)
    assert node.quorum.majority_applied == 8
    node.hear(E, T0, applied=14)
    assert node.quorum.majority_applied == 10
    node.hear(D, T0, applied=12)
    assert node.quorum.majority_applied == 10  # three have applied 12, but not we: our list of members may be an old one
    node.quorum.advance(13, True, T0)
    assert node.quorum.majority_applied == 12


def test_acknowledged_never_falls() -> None:
    node = HandMade((B, C), applied=10)
    node.hear(B, T0, applied=10)
    assert node.quorum.majority_applied == 10
    node.hear(B, T0, applied=2, incarnation=2, number=1)
    node.quorum.set_members({SELF, B, C, D, E}, T0)
    assert node.quorum.majority_applied == 10


def test_an_uncounted_node_is_no_part_of_a_majority() -> None:
    node = HandMade((B, C), applied=10, counted=False)
    node.hear(B, T0, applied=10)
    assert node.quorum.majority_applied == 0
    node.quorum.advance(10, True, T0)
    assert node.quorum.majority_applied == 10


def test_beats_are_numbered_and_echo_the_latest_of_every_peer() -> None:
    node = HandMade((B, C), incarnation=7)
    node.hear(B, T0, incarnation=4, number=20)
    node.hear(B, T0 + 5, incarnation=4, number=21)
    first = node.quorum.make_beat(T0 + 7, notice=False, figures=Figures(5, 6, "2.0"))
    assert (first.node_id, first.incarnation, first.number, first.applied, first.counted) == (SELF, 7, 1, 10, True)
    assert (first.echoes, first.sessions, first.pending, first.version) == ((Echo(B, 4, 21, 2),), 5, 6, "2.0")
    notice = node.quorum.make_beat(T0 + 8, notice=True, figures=Figures())
    assert (notice.number, notice.notice, notice.echoes) == (2, True, ())


def test_sent_beats_are_remembered_as_long_as_a_proof_may_take_and_no_longer() -> None:
    node = HandMade((B, C))
    echo = node.send(T0)
    node.send(T0 + STALENESS_NS + 2 * SECOND)
    assert node.hear(B, T0 + STALENESS_NS + 2 * SECOND, echo) != []
    node.send(T0 + STALENESS_NS + 2 * SECOND + 1)
    assert node.hear(B, T0 + STALENESS_NS + 2 * SECOND + 1, echo) == []


def test_sent_beats_that_are_remembered_have_a_bound() -> None:
    node = HandMade((B, C))
    echoes = [node.send(T0) for _ in range(SENT_MAX + 1)]
    assert node.hear(B, T0, echoes[0]) == []
    assert node.hear(B, T0, echoes[1]) == [0]


def test_half_the_round_trip_without_the_time_at_the_peer_is_the_lag() -> None:
    node = HandMade((B, C))
    echo = node.send(T0)
    assert node.hear(B, T0 + 100 * MS, echo._replace(age_ns=80 * MS)) == [10 * MS]
    assert node.hear(B, T0 + 100 * MS, echo._replace(age_ns=101 * MS)) == []  # cannot be true
    assert node.quorum.peers[B].round_trip_ns == 20 * MS
