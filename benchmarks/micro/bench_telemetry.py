"""What counting and timing cost on the hot path. In loops of 1000, microseconds read as nanoseconds."""

from types import ModuleType

from pytest_benchmark.fixture import BenchmarkFixture

from tokmesh._core.counters import CounterBlock
from tokmesh._core.histogram import LATENCY_BOUNDS_NS, HistogramBlock


def test_histogram_observe_x1000(benchmark: BenchmarkFixture, loops: ModuleType) -> None:
    block = HistogramBlock(1, LATENCY_BOUNDS_NS)
    benchmark(loops.observe, block, 1000)
    assert block.snapshot(0)[0][-1] % 1000 == 0


def test_native_histogram_observe_x1000(benchmark: BenchmarkFixture, loops: ModuleType) -> None:
    block = HistogramBlock(1, LATENCY_BOUNDS_NS)
    block.enable_native()
    benchmark(loops.observe, block, 1000)
    assert block.snapshot(0)[0][-1] % 1000 == 0


def test_counter_add_x1000(benchmark: BenchmarkFixture, loops: ModuleType) -> None:
    block = CounterBlock()
    benchmark(loops.count_events, block, 1000)
    assert sum(block.read_all()) % 1000 == 0


def test_histogram_record_from_python(benchmark: BenchmarkFixture) -> None:
    block = HistogramBlock(1, LATENCY_BOUNDS_NS)
    benchmark(block.record, 0, 123_456)
    assert block.snapshot(0)[0][-1] > 0
