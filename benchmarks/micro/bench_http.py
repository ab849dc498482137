"""From bytes to a request: through the parser, recognised as a repetition of the head before it, and the fields of a body."""

from types import ModuleType

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.workload import session_input
from tokmesh._core.reader import MessageReader
from tokmesh.api.body import BodySpec


def test_parse_request_x1000(benchmark: BenchmarkFixture, loops: ModuleType, validate_request: bytes) -> None:
    reader = MessageReader(16_384, 64, 1 << 20)
    assert benchmark(loops.read_requests, reader, validate_request, 1000, False) == 60_000


def test_repeated_request_x1000(benchmark: BenchmarkFixture, loops: ModuleType, validate_request: bytes) -> None:
    reader = MessageReader(16_384, 64, 1 << 20)
    assert benchmark(loops.read_requests, reader, validate_request, 1000, True) == 60_000


def test_fields_of_a_create(benchmark: BenchmarkFixture) -> None:
    texts = dict.fromkeys(("device_id", "ip_address", "user_agent"), str)
    spec = BodySpec(required={"user_id": str}, optional={**texts, "ttl_seconds": int, "data": dict})
    body = session_input(1, 1).body(None).encode()
    assert len(benchmark(spec.parse, body)) == 5
