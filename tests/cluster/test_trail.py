"""A trail answers truly, stays small, and is as exact as the age of what is asked for allows."""

import hypothesis.strategies as st
from hypothesis import given

from tokmesh.cluster.trail import MARKS_MAX, Trail

MS = 1_000_000


def test_a_trail_knows_when_a_sequence_was_reached() -> None:
    trail = Trail()
    assert trail.first_at(1) is None
    assert trail.last_within(1) is None
    for at_ns, sequence in ((100, 5), (200, 5), (300, 9)):
        trail.add(at_ns, sequence)
    assert [trail.first_at(sequence) for sequence in (1, 5, 6, 9, 10)] == [100, 100, 300, 300, None]
    assert [trail.last_within(sequence) for sequence in (4, 5, 8, 9, 10)] == [None, 200, 200, 300, 300]
    trail.drop_within(5)
    assert (len(trail), trail.last_within(8), trail.last_within(9)) == (1, None, 300)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 3)), min_size=1, max_size=60))
def test_marks_that_fall_behind_are_raised(steps: list[tuple[int, int]]) -> None:
    trail = Trail()
    for at_ns, sequence in steps:
        trail.add(at_ns, sequence)
    assert trail.first_at(max(sequence for _, sequence in steps)) is not None
    assert trail.last_within(10) == max(at_ns for at_ns, _ in steps)


def test_a_trail_of_any_length_is_small_and_errs_by_a_share_of_the_age_to_the_safe_side() -> None:
    trail = Trail()
    step_ns, count = 2 * MS, 200_000
    for sequence in range(1, count + 1):
        trail.add(sequence * step_ns, sequence)
        assert len(trail) < MARKS_MAX
    now_ns = count * step_ns
    for sequence in range(1, count + 1, 997):
        true_ns = sequence * step_ns
        first_ns, last_ns = trail.first_at(sequence), trail.last_within(sequence)
        margin_ns = (now_ns - true_ns) // 8 + 2 * step_ns
        assert first_ns is not None
        assert true_ns <= first_ns <= true_ns + margin_ns
        assert last_ns is not None
        assert true_ns - margin_ns <= last_ns <= true_ns
    assert trail.first_at(count) == trail.last_within(count) == now_ns
