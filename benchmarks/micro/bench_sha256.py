"""SHA-256 of a token: the core's, with and without the processor's instructions, beside hashlib's."""

import hashlib
from types import ModuleType

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.conftest import TOKEN


def test_sha256_core_x1000(benchmark: BenchmarkFixture, loops: ModuleType) -> None:
    benchmark(loops.hash_tokens, TOKEN.encode(), 1000, False)


def test_sha256_core_portable_x1000(benchmark: BenchmarkFixture, loops: ModuleType) -> None:
    benchmark(loops.hash_tokens, TOKEN.encode(), 1000, True)


def hashlib_loop(token: bytes, count: int) -> bytes:
    digest = b""
    for number in range(count):
        digest = hashlib.sha256(token[:47] + bytes((number & 255,))).digest()
    return digest


def test_sha256_hashlib_x1000(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(hashlib_loop, TOKEN.encode(), 1000)) == 32
