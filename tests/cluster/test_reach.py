"""Whom a sequence has reached: told so, provably fenced off, or to be waited for."""

from tests.cluster.hand_made import SECOND, SELF, STALENESS_NS, T0, B, C, D, E, HandMade
from tokmesh.cluster.beat import Echo
from tokmesh.cluster.reach import SLACK_NS, Reach

QUIET_NS = STALENESS_NS + SLACK_NS
LATER = T0 + 100 * SECOND


def reach_of(applied: set[str], fenced: set[str], waiting: set[str]) -> Reach:
    return Reach(frozenset(applied), frozenset(fenced), frozenset(waiting))


def settled(*others: str) -> HandMade:
    """Members at 10, whose list has been acknowledged long before LATER."""
    node = HandMade(others)
    for other in others:
        node.hear(other, T0)
    node.quorum.reach(1, LATER)
    return node


def test_applied_is_who_told_so_and_ourselves() -> None:
    node = settled(B, C)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, applied=11)
    node.hear(C, LATER, applied=10)
    assert node.quorum.reach(11, LATER) == reach_of({SELF, B}, set(), {C})
    node.hear(C, LATER, applied=11, notice=True)
    assert node.quorum.reach(11, LATER) == reach_of({SELF, B, C}, set(), set())


def test_nobody_is_fenced_before_we_have_applied_it_ourselves() -> None:
    node = settled(B, C)
    node.hear(B, LATER, applied=11)
    assert node.quorum.reach(11, LATER) == reach_of({B}, set(), {SELF, C})
    node.quorum.advance(11, True, LATER)
    assert node.quorum.reach(11, LATER) == reach_of({SELF, B}, {C}, set())


def test_a_node_that_is_no_member_by_its_list_waits_for_itself_too() -> None:
    node = settled(B, C)
    node.quorum.set_members({B, C}, T0)
    node.quorum.advance(11, True, T0)
    for other in (B, C):
        node.hear(other, T0, applied=11)
        node.hear(other, LATER, applied=12)
    assert node.quorum.reach(11, LATER).waiting == set()
    assert node.quorum.reach(12, LATER).waiting == {SELF}  # it may have become one since


def test_a_silent_member_is_fenced_once_nobody_can_have_heard_it() -> None:
    node = settled(B, C)
    node.hear(C, LATER)
    node.quorum.advance(11, True, LATER + QUIET_NS)
    node.hear(B, LATER + QUIET_NS, Echo(C, 1, 3, QUIET_NS - 1), applied=11)
    assert node.quorum.reach(11, LATER + QUIET_NS - 1).waiting == {C}
    assert node.quorum.reach(11, LATER + QUIET_NS).waiting == {C}  # B heard it a nanosecond after we did
    assert node.quorum.reach(11, LATER + QUIET_NS + 1) == reach_of({SELF, B}, {C}, set())


def test_what_we_heard_of_it_ourselves_counts() -> None:
    node = settled(B, C)
    node.quorum.advance(11, True, LATER)
    node.hear(C, LATER)
    node.hear(B, LATER, Echo(C, 1, 3, QUIET_NS), applied=11)
    assert node.quorum.reach(11, LATER + QUIET_NS - 1).waiting == {C}
    assert node.quorum.reach(11, LATER + QUIET_NS).fenced == {C}


def test_a_witness_counts_only_by_a_beat_with_echoes_from_after_it_applied() -> None:
    node = settled(B, C)
    node.quorum.advance(12, True, LATER)
    node.hear(B, LATER, Echo(C, 1, 3, 90 * SECOND), applied=11)
    assert node.quorum.reach(11, LATER).fenced == {C}
    node.hear(B, LATER, applied=12, notice=True)
    assert node.quorum.reach(12, LATER) == reach_of({SELF, B}, set(), {C})
    node.hear(B, LATER, Echo(C, 1, 3, 90 * SECOND), applied=12)
    assert node.quorum.reach(12, LATER).fenced == {C}


def test_members_of_whom_nothing_is_known_may_have_heard_each_other_but_are_too_few() -> None:
    node = settled(B, C, D, E)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, Echo(D, 1, 3, 90 * SECOND), Echo(E, 1, 4, 90 * SECOND), applied=11)
    assert node.quorum.reach(11, LATER).waiting == {C, D, E}  # three of them can prove themselves current to each other
    node.hear(C, LATER, Echo(D, 1, 3, 90 * SECOND), Echo(E, 1, 4, 90 * SECOND), applied=11)
    assert node.quorum.reach(11, LATER) == reach_of({SELF, B, C}, {D, E}, set())


def test_a_witness_without_an_echo_may_have_heard_it_in_the_life_before() -> None:
    node = settled(B, C)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, incarnation=2, number=1, applied=11)
    assert node.quorum.reach(11, LATER).waiting == {C}
    node.hear(B, LATER + QUIET_NS - 1, incarnation=2, number=2, applied=11)
    # By the second rule everybody is fenced now; of a later sequence only the first can tell.
    node.quorum.advance(12, True, LATER + QUIET_NS)
    node.hear(B, LATER + QUIET_NS, incarnation=2, number=3, applied=12)
    assert node.quorum.reach(12, LATER + QUIET_NS) == reach_of({SELF, B}, {C}, set())


def test_a_majority_for_long_enough_fences_whoever_has_not_applied_it() -> None:
    node = settled(B, C)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, applied=11)
    for late_ns, fenced in ((QUIET_NS - 1, set()), (QUIET_NS, {C})):
        node.hear(C, LATER + late_ns)  # alive, heard by everybody, and stuck
        assert node.quorum.reach(11, LATER + late_ns).fenced == fenced


def test_a_change_of_members_is_recent_until_all_who_answer_know_it() -> None:
    node = settled(B, C, D)
    node.quorum.set_members({SELF, B, C}, LATER)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, applied=11)
    node.quorum.advance(12, True, LATER + QUIET_NS - 1)
    node.hear(B, LATER + QUIET_NS - 1, Echo(C, 1, 2, 90 * SECOND), applied=12)
    # C is silent for long, but may go by the former list; D may not know that it is a member no more.
    assert node.quorum.reach(12, LATER + QUIET_NS - 1) == reach_of({SELF, B}, set(), {C, D})
    assert node.quorum.reach(12, LATER + QUIET_NS) == reach_of({SELF, B}, {C}, set())


def test_a_member_that_comes_back_is_not_waited_for_as_a_removed_one() -> None:
    node = settled(B, C)
    node.quorum.set_members({SELF, B}, LATER)
    node.quorum.set_members({SELF, B, C}, LATER)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, applied=11)
    node.hear(C, LATER, applied=11)
    assert node.quorum.reach(11, LATER) == reach_of({SELF, B, C}, set(), set())


def test_after_a_start_nobody_is_taken_for_the_last_one_to_be_waited_for() -> None:
    node = HandMade((B, C))
    node.quorum.advance(11, True, LATER)
    for other in (B, C):
        node.hear(other, LATER, applied=11)
    # A member that was removed just before our start may still answer by the former list.
    assert node.quorum.reach(11, LATER + QUIET_NS - 1) == reach_of({B, C}, set(), {SELF})
    assert node.quorum.reach(11, LATER + QUIET_NS) == reach_of({SELF, B, C}, set(), set())
    node.quorum.advance(12, True, LATER + QUIET_NS)
    assert SELF in node.quorum.reach(12, LATER + QUIET_NS).applied


LONG_NS = 15 * STALENESS_NS  # of a member; ours is STALENESS_NS


def test_a_member_that_may_answer_for_longer_by_its_proofs_than_we_is_waited_for_as_long() -> None:
    node = settled(B, C)
    node.hear(C, LATER, max_staleness_ns=LONG_NS)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, applied=11)
    assert node.quorum.reach(11, LATER + LONG_NS + SLACK_NS - 1).waiting == {C}
    assert node.quorum.reach(11, LATER + LONG_NS + SLACK_NS) == reach_of({SELF, B}, {C}, set())


def test_a_member_that_was_removed_and_may_answer_for_longer_than_we_is_waited_for_as_long() -> None:
    node = settled(B, C)
    node.hear(C, LATER, max_staleness_ns=LONG_NS)
    node.quorum.set_members({SELF, B}, LATER)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, applied=11)
    assert node.quorum.reach(11, LATER + LONG_NS + SLACK_NS - 1).waiting == {C}
    assert node.quorum.reach(11, LATER + LONG_NS + SLACK_NS).waiting == set()


def test_a_member_that_was_started_again_with_a_shorter_time_is_waited_for_no_longer_than_that() -> None:
    node = settled(B, C)
    node.hear(C, LATER, max_staleness_ns=LONG_NS)
    node.hear(C, LATER, incarnation=2)
    node.quorum.advance(11, True, LATER)
    node.hear(B, LATER, applied=11)
    assert node.quorum.reach(11, LATER + QUIET_NS) == reach_of({SELF, B}, {C}, set())
