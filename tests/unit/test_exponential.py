"""Exponential buckets against their definition, 2^((i-1)/8) < seconds ≤ 2^(i/8), in rational numbers."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokmesh._core.exponential import INDEX_MAX, INDEX_MIN, SCHEMA, ExponentialBlock, bounds_ns
from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock

VALUES_NS = st.one_of(
    st.integers(1, 2**64 - 1),
    st.integers(1, 10**11),
    st.integers(0, 63).map(lambda shift: 1 << shift),
    st.sampled_from([bound + offset for bound in bounds_ns()[:-1] for offset in (0, 1)]),
)


def block(rows: int = 1) -> HistogramBlock:
    made = HistogramBlock(rows, LATENCY_BOUNDS_NS)
    made.enable_native()
    return made


def native(histogram: HistogramBlock, row: int = 0) -> tuple[int, list[tuple[int, int]]]:
    assert histogram.native is not None
    return histogram.native.snapshot(row)


def is_at_most(value_ns: int, index: int) -> bool:
    """Whether value_ns ≤ 10⁹ · 2^(index/8), by the eighth powers of both sides."""
    return Fraction(value_ns) ** 8 <= Fraction(10**72) * Fraction(2) ** index


@given(VALUES_NS)
@example(1)
@example(2**64 - 1)
@example(10**9)
@example(10**9 + 1)
def test_a_value_counts_in_the_bucket_that_holds_it(value_ns: int) -> None:
    histogram = block()
    histogram.record(0, value_ns)
    zeros, [(index, count)] = native(histogram)
    assert (zeros, count) == (0, 1)
    assert is_at_most(value_ns, index) and not is_at_most(value_ns, index - 1)
    assert INDEX_MIN <= index <= INDEX_MAX and SCHEMA == 3


def test_a_second_is_the_end_of_bucket_0() -> None:
    histogram = block()
    for value_ns in (10**9, 10**9 + 1, 2 * 10**9, 500_000_000):
        histogram.record(0, value_ns)
    assert native(histogram) == (0, [(-8, 1), (0, 1), (1, 1), (8, 1)])


@given(st.lists(st.one_of(st.just(0), VALUES_NS), max_size=50))
def test_it_counts_what_the_classic_buckets_count(values_ns: list[int]) -> None:
    histogram = block(3)
    for value_ns in values_ns:
        histogram.record(1, value_ns)
    zeros, buckets = native(histogram, 1)
    assert zeros == values_ns.count(0)
    assert zeros + sum(count for _, count in buckets) == histogram.snapshot(1)[0][-1] == len(values_ns)
    assert [index for index, _ in buckets] == sorted({index for index, _ in buckets})
    assert native(histogram, 0) == native(histogram, 2) == (0, [])


def test_classic_buckets_are_the_same_with_it() -> None:
    plain, both = HistogramBlock(1, LATENCY_BOUNDS_NS), block()
    for value_ns in range(0, 20 * 10**9, 12_345_678):
        plain.record(0, value_ns)
        both.record(0, value_ns)
    assert plain.snapshot(0) == both.snapshot(0)


def test_it_exists_only_when_asked_for_and_before_the_first_observation() -> None:
    histogram = HistogramBlock(2, LATENCY_BOUNDS_NS)
    assert histogram.native is None
    histogram.record(1, 5)
    with pytest.raises(AssertionError, match="before"):
        histogram.enable_native()
    assert histogram.native is None
    other = block()
    other.record(0, 5)
    other.enable_native()  # a second time changes nothing
    assert native(other)[1] == [(-220, 1)]


def test_rows_outside_are_refused() -> None:
    with pytest.raises(ValueError, match="row"):
        ExponentialBlock(0)
    for row in (-1, 1):
        with pytest.raises(IndexError):
            native(block(), row)


def test_exemplar_is_kept_in_its_bucket_until_the_next_one_there() -> None:
    histogram = HistogramBlock(2, (10, 20))
    assert histogram.exemplars(0) == {}
    for value, trace_id, at_ms in ((10, "a" * 32, 1), (11, "b" * 32, 2), (9, "c" * 32, 3), (21, "d" * 32, 4)):
        histogram.note_exemplar(0, value, trace_id, at_ms)
    assert histogram.exemplars(0) == {0: ("c" * 32, 9, 3), 1: ("b" * 32, 11, 2), 2: ("d" * 32, 21, 4)}
    assert histogram.exemplars(1) == {} and histogram.snapshot(0) == ([0, 0, 0], 0)
    with pytest.raises(IndexError):
        histogram.note_exemplar(2, 1, "a" * 32, 1)
    with pytest.raises(AssertionError, match="32"):
        histogram.note_exemplar(0, 1, "tmtk_" + "A" * 43, 1)
