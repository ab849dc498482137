"""From bytes to a request: through the parser, and recognised as a repetition of the head before it."""

from types import ModuleType

from pytest_benchmark.fixture import BenchmarkFixture

from tokmesh._core.reader import MessageReader


def test_parse_request_x1000(benchmark: BenchmarkFixture, loops: ModuleType, validate_request: bytes) -> None:
    reader = MessageReader(16_384, 64, 1 << 20)
    assert benchmark(loops.read_requests, reader, validate_request, 1000, False) == 60_000


def test_repeated_request_x1000(benchmark: BenchmarkFixture, loops: ModuleType, validate_request: bytes) -> None:
    reader = MessageReader(16_384, 64, 1 << 20)
    assert benchmark(loops.read_requests, reader, validate_request, 1000, True) == 60_000
