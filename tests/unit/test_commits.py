"""Commits and Tail without Python's threads in between: groups, bounds, order, what ends a run, what a failed call leaves."""

import errno
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokmesh._core import wal
from tokmesh._core.commits import Commits, Stop
from tokmesh._core.tail import Tail

SECOND_NS = 1_000_000_000
SEGMENT_BYTES = 1 << 20
PAYLOAD_MAX = 1000


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, SEGMENT_BYTES)
    yield fd
    os.close(fd)


@pytest.fixture
def tail(file: int) -> Tail:
    tail = Tail()
    tail.enter(file, 7, SEGMENT_BYTES, 64)
    tail.sequence_due = 1
    return tail


def frames(fd: int, tail: Tail) -> list[list[bytes]]:
    """Every frame up to the tail, each verified in its place in the chain."""
    data, at, sequence, chain = os.pread(fd, SEGMENT_BYTES, 0), 64, 1, 0
    found = []
    while at < tail.offset:
        status, frame = wal.read_frame(data, at, 7, sequence, chain)
        assert status == wal.FrameStatus.FRAME_VALID and frame is not None
        at, sequence, chain = frame.end, sequence + len(frame.records), frame.chain
        found.append(frame.records)
    assert (at, sequence, chain) == (tail.offset, tail.sequence_due, tail.chain)
    assert not any(data[at:])
    return found


def test_what_gathered_becomes_one_durable_frame_in_order(file: int, tail: Tail) -> None:
    commits = Commits(PAYLOAD_MAX)
    for number in range(10):
        commits.put(b"record %d" % number, False)
    assert commits.pending == 10 and commits.acknowledge() == 0
    assert commits.run(tail, SEGMENT_BYTES, True, 0) == Stop.STOP_TIME
    assert commits.acknowledge() == commits.taken == 10 and commits.pending == 0
    assert frames(file, tail) == [[b"record %d" % number for number in range(10)]]
    assert (tail.durable_sequence, tail.syncs, tail.frames, tail.records) == (10, 1, 1, 10)
    assert tail.group_histogram.snapshot(0)[1] == 10 and tail.sync_histogram.snapshot(0)[0][-1] == 1


def test_without_sync_a_group_is_written_and_not_durable(file: int, tail: Tail) -> None:
    commits = Commits(PAYLOAD_MAX)
    commits.put(b"a", False)
    commits.run(tail, SEGMENT_BYTES, False, 0)
    assert (commits.decided, tail.durable_sequence, tail.sequence_due, tail.syncs) == (1, 0, 2, 0)


def test_a_frame_takes_as_much_as_fits_and_no_more(file: int, tail: Tail) -> None:
    commits = Commits(PAYLOAD_MAX)
    whole = PAYLOAD_MAX - wal.RECORD_HEADER_BYTES
    with pytest.raises(ValueError, match="larger than a frame"):
        commits.put(bytes(whole + 1), False)
    half = PAYLOAD_MAX // 2 - wal.RECORD_HEADER_BYTES
    for size in (whole, half, half, half, half + 1, 1):
        commits.put(b"x" * size, False)
    while commits.pending:
        commits.run(tail, SEGMENT_BYTES, True, 0)
    assert [[len(record) for record in group] for group in frames(file, tail)] == [[whole], [half, half], [half], [half + 1, 1]]


def test_a_group_has_at_most_1024_records(file: int, tail: Tail) -> None:
    commits = Commits(1 << 16)
    for _ in range(1025):
        commits.put(b"", False)
    while commits.pending:
        commits.run(tail, SEGMENT_BYTES, True, 0)
    assert [len(group) for group in frames(file, tail)] == [1024, 1]


@pytest.mark.parametrize("short_by", [0, 1])
def test_a_group_that_ends_beyond_the_limit_is_left_to_judgement(file: int, tail: Tail, short_by: int) -> None:
    commits = Commits(PAYLOAD_MAX)
    commits.put(b"plain", False)
    commits.put(b"revocation", True)
    limit = tail.offset + wal.FRAME_HEADER_BYTES + 2 * wal.RECORD_HEADER_BYTES + len(b"plainrevocation") - short_by
    stop = commits.run(tail, limit, True, 0)
    assert stop == (Stop.STOP_ROOM if short_by else Stop.STOP_TIME)
    assert commits.take() == ([(b"plain", False), (b"revocation", True)] if short_by else [])
    assert commits.decided == (0 if short_by else 2)
    if short_by:
        commits.decide(2)
        assert commits.acknowledge() == 2
        with pytest.raises(AssertionError):
            commits.decide(1)


def test_a_write_that_fails_takes_and_moves_nothing(tail: Tail) -> None:
    commits = Commits(PAYLOAD_MAX)
    commits.put(b"a", False)
    tail.fd = os.open("/dev/full", os.O_WRONLY)
    try:
        assert commits.run(tail, SEGMENT_BYTES, True, 0) == Stop.STOP_WRITE
    finally:
        os.close(tail.fd)
    assert commits.error_number in (errno.ENOSPC, errno.ESPIPE)
    assert (commits.pending, commits.taken, tail.offset, tail.sequence_due, tail.chain) == (1, 0, 64, 1, 0)


def test_a_sync_that_fails_decides_nothing(file: int, tail: Tail, tmp_path: Path) -> None:
    commits = Commits(PAYLOAD_MAX)
    commits.put(b"a", False)
    zeros = os.open("/dev/zero", os.O_RDWR)  # takes writes, and no fdatasync
    try:
        tail.fd = zeros
        assert commits.run(tail, SEGMENT_BYTES, True, 0) == Stop.STOP_SYNC
    finally:
        os.close(zeros)
    assert commits.error_number == errno.EINVAL
    assert (commits.taken, commits.decided, commits.acknowledge(), tail.durable_sequence) == (1, 0, 0, 0)


def test_interrupt_ends_a_run_once(tail: Tail) -> None:
    commits = Commits(PAYLOAD_MAX)
    commits.interrupt()
    assert commits.run(tail, SEGMENT_BYTES, True, 60 * SECOND_NS) == Stop.STOP_ASKED
    assert commits.run(tail, SEGMENT_BYTES, True, 0) == Stop.STOP_TIME


def test_an_idle_writer_is_woken_and_every_decision_reaches_the_descriptor(file: int, tail: Tail) -> None:
    commits, rounds = Commits(PAYLOAD_MAX), 200
    stops: list[int] = []
    writer = threading.Thread(target=lambda: stops.append(commits.run(tail, SEGMENT_BYTES, True, 60 * SECOND_NS)))
    writer.start()
    for number in range(rounds):
        if commits.put(b"%d" % number, False):
            commits.wake()
        while commits.acknowledge() <= number:
            assert select.select([commits.fileno()], [], [], 30)[0], "a decision was not told"
    commits.interrupt()
    writer.join(30)
    assert stops == [Stop.STOP_ASKED]
    assert [record for group in frames(file, tail) for record in group] == [b"%d" % number for number in range(rounds)]
