"""Counter blocks: sums, bounds, and that names and positions stay together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmesh._core.counters import NAMES, Counter, CounterBlock


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**60)), max_size=50))
def test_counters_add_up_apart_from_each_other(additions: list[tuple[int, int]]) -> None:
    block = CounterBlock(5)
    expected = [0] * 5
    for index, amount in additions:
        block.increment(index, amount)
        expected[index] = (expected[index] + amount) % 2**64
    assert block.read_all() == expected == [block.read(index) for index in range(5)]


def test_names_are_the_counters_in_order() -> None:
    assert len(NAMES) == Counter.COUNTER_COUNT == CounterBlock().size
    assert [Counter[name.upper()] for name in NAMES] == list(range(len(NAMES)))


def test_an_increment_is_one_unless_said_otherwise() -> None:
    block = CounterBlock()
    block.increment(Counter.SESSION_CREATE)
    assert block.read(Counter.SESSION_CREATE) == 1


@pytest.mark.parametrize("index", [-1, 3])
def test_a_counter_outside_the_block_is_refused(index: int) -> None:
    block = CounterBlock(3)
    with pytest.raises(IndexError):
        block.increment(index)
    with pytest.raises(IndexError):
        block.read(index)


def test_a_block_holds_at_least_one_counter() -> None:
    with pytest.raises(ValueError, match="at least one"):
        CounterBlock(0)
