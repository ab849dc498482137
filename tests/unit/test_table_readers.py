"""Readers in other processes, on the same memory, while the writer changes everything under them."""

import itertools
import mmap
import os
import signal
import time
import traceback
from collections.abc import Callable

from tests.model.table_pair import hash_of, id_of
from tokmesh._core.table import Table, Verdict

NOW_MS = 1_700_000_000_000
SECONDS = 1.0
SECONDS_MAX = 60.0
WRITES_MIN = 1000
READS_MIN = 100


def data_of(number: int) -> bytes:
    """Of many sizes, and telling when two versions are mixed."""
    return b'{"n":"%s"}' % (b"%d;" % number * (number * 37 % 90 + 1))


def insert(table: Table, number: int, data: bytes) -> None:
    table.insert(
        id_of(number), hash_of(number), f"user-{number % 100}", "", "10.0.0.1", f"agent-{number % 30}", "tmak-1", NOW_MS,
        NOW_MS + 10**9, 0, data,
    )  # fmt: skip


def check_consistent(text: bytes) -> None:
    parts = text.split(b'"n":"')[1].split(b'"')[0].split(b";")
    assert parts.pop() == b""
    assert set(parts) == {parts[0]}, text
    assert len(parts) == int(parts[0]) * 37 % 90 + 1, text
    assert text.startswith(b'{"id":"tmss-')
    assert text.endswith(b"}")


def answer(table: Table, token_hash: bytes) -> tuple[int, bytes]:
    """A verdict other than BUSY, which only says that the writer was held up in the middle of a change: bounded by time."""
    deadline = time.monotonic() + SECONDS_MAX
    while (found := table.check(token_hash, NOW_MS))[0] == Verdict.VERDICT_BUSY:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found


def run_beside(read: Callable[[], None], write: Callable[[int], None]) -> None:
    """Repeats `read` in a child process, which shares the table's memory, while this one repeats `write` with 1, 2, …, until
    both have been at it for SECONDS and each has done its share: a busy machine may let either wait."""
    reads = mmap.mmap(-1, 8)  # shared: how often the child has read

    def read_until_killed() -> None:
        for number in itertools.count(1):
            read()
            reads[:] = number.to_bytes(8, "little")

    child = os.fork()
    if child == 0:
        try:
            read_until_killed()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    started, number, ended = time.monotonic(), 0, (0, 0)
    while ended[0] == 0:
        for _ in range(100):
            number += 1
            write(number)
        ended = os.waitpid(child, os.WNOHANG)
        passed_s = time.monotonic() - started
        if passed_s > SECONDS and number > WRITES_MIN and int.from_bytes(reads[:], "little") > READS_MIN:
            break
        assert passed_s < SECONDS_MAX, "the reader or the writer stands still"
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    assert ended == (child, signal.SIGKILL), "the reader ended by itself: it saw something wrong"
    reads.close()


def test_a_reader_never_sees_half_a_change() -> None:
    table = Table(tombstone_ttl_ms=1000)
    insert(table, 1, data_of(1))

    def read() -> None:
        verdict, text = answer(table, hash_of(1))
        assert verdict == Verdict.VERDICT_VALID
        check_consistent(text)

    def write(number: int) -> None:
        table.update(id_of(1), data_of(number), NOW_MS)
        table.touch(id_of(1), NOW_MS, f"10.0.{number % 256}.{number % 7}", f"agent-{number % 11}" * (number % 5))

    run_beside(read, write)


def test_a_reader_finds_every_live_token_while_the_index_grows_and_shrinks() -> None:
    table = Table(tombstone_ttl_ms=0)
    for number in range(400):
        insert(table, number, data_of(number))
    numbers = itertools.cycle(range(400))

    def read() -> None:
        for _ in range(100):
            verdict, text = answer(table, hash_of(next(numbers)))
            assert verdict == Verdict.VERDICT_VALID
            check_consistent(text)

    def write(number: int) -> None:
        insert(table, 1000 + number, data_of(number))
        if number % 5000 == 0:
            for gone in range(number - 4999, number + 1):
                table.revoke(id_of(1000 + gone), NOW_MS)
            table.advance(NOW_MS + 1000, 1 << 30)

    run_beside(read, write)


def test_a_rotated_token_is_never_unknown() -> None:
    """Valid while it is the session's or in its grace, expired after the next rotation, nothing else in between."""
    table = Table(tombstone_ttl_ms=10**9)
    insert(table, 0, data_of(0))
    current = 0

    def read() -> None:
        nonlocal current
        verdict, text = answer(table, hash_of(current))
        if verdict == Verdict.VERDICT_VALID:
            check_consistent(text)
        else:
            assert verdict == Verdict.VERDICT_EXPIRED
            current += 1

    def write(number: int) -> None:
        table.rotate(id_of(0), hash_of(number), NOW_MS + 60_000, NOW_MS)

    run_beside(read, write)
