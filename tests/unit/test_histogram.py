"""The histogram's O(1) bucket search against the plain definition: the first bound that is not less than the value."""

import bisect
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock

VALUES = st.one_of(st.integers(0, 2**63), st.integers(0, 63).map(lambda shift: 1 << shift), st.integers(0, 5000))
BOUNDS = st.sets(st.one_of(st.integers(1, 5000), st.integers(1, 2**62)), min_size=1, max_size=64).map(sorted)


@given(BOUNDS, st.lists(VALUES, max_size=20))
@example([1], [0, 1, 2])
@example([2**62], [2**62 - 1, 2**62, 2**62 + 1])
def test_a_value_counts_in_the_first_bucket_that_admits_it(bounds: list[int], values: list[int]) -> None:
    block = HistogramBlock(2, bounds)
    for value in values:
        block.record(1, value)
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect.bisect_left(bounds, value)] += 1
    assert block.snapshot(1) == (list(itertools.accumulate(counts)), sum(values) % 2**64)
    assert block.snapshot(0) == ([0] * (len(bounds) + 1), 0)


@given(BOUNDS, st.integers(-1, 1))
def test_around_every_bound(bounds: list[int], offset: int) -> None:
    for position, bound in enumerate(bounds):
        block = HistogramBlock(1, bounds)
        block.record(0, bound + offset)
        cumulative, total = block.snapshot(0)
        assert total == bound + offset
        first = next(index for index, count in enumerate(cumulative) if count)
        assert first == bisect.bisect_left(bounds, bound + offset)
        assert offset != 0 or first == position


def test_the_contracts_bounds_are_exact() -> None:
    assert {100_000_000, 5_000_000_000} <= set(LATENCY_BOUNDS_NS)
    assert (LATENCY_BOUNDS_NS[0], LATENCY_BOUNDS_NS[-1]) == (100_000, 10_000_000_000)


@pytest.mark.parametrize("bounds", [[], [0], [2, 1], [1, 1], list(range(1, 66))])
def test_bad_bounds_are_refused(bounds: list[int]) -> None:
    with pytest.raises(ValueError, match=r"bounds|64"):
        HistogramBlock(1, bounds)


def test_a_row_outside_the_block_is_refused() -> None:
    block = HistogramBlock(1, [1])
    for row in (-1, 1):
        with pytest.raises(IndexError):
            block.record(row, 1)
        with pytest.raises(IndexError):
            block.snapshot(row)
