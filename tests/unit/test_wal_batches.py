"""Batches in the log of one node: in order with what is proposed beside them, in bounded turns, whole or told that they are not."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.records import QUIET
from tests.support.running_log import run_log
from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh._core.streamed import StreamedBatch
from tokmesh.errors import ApiError
from tokmesh.log import appender, file_log
from tokmesh.log.appender import frame_bytes_max
from tokmesh.log.file_log import FileLog
from tokmesh.log.settling import TURN_RECORDS_MAX
from tokmesh.storage.segment import frame_overhead

CLOCK = Clock()


class Envelope:
    """A record that is its bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def encode(self) -> bytes:
        return self.content


def batch_of(*contents: bytes, first: int = 1) -> StreamedBatch:
    batch = StreamedBatch(first - 1, CLOCK)
    for position, content in enumerate(contents, first):
        batch.append(position, content)
    return batch


class Applied:
    """What was applied, in order, and in which parts of batches."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.parts: list[tuple[int, int]] = []
        self.fails_at: bytes | None = None

    def one(self, sequence: int, record: Envelope) -> int:
        self.contents.append(record.content)
        assert sequence == len(self.contents)
        return sequence

    def all(self, sequence: int, batch: StreamedBatch, start: int, end: int) -> None:
        assert sequence == len(self.contents) + 1 and start < end
        self.parts.append((start, end))
        for index in range(start, end):
            content = batch.record(index)[26:]
            if content == self.fails_at:
                raise RuntimeError("our bug")
            self.contents.append(content)


def run(
    directory: Path, body: Callable[[FileLog[Envelope], Applied], Awaitable[None]], segment_bytes: int = 1 << 20, **kwargs: Any
) -> Applied:
    """`body` with a log there, and what was applied: what it had, and what came."""
    log = FileLog(
        directory, segment_bytes_max=segment_bytes, decode=Envelope, clock=CLOCK, logger=QUIET,
        **{"sync_mode": "always", "sync_interval_ms": 20, **kwargs},
    )  # fmt: skip
    applied = Applied()
    return run_log(log, applied, body, applied.one, applied.all)


@pytest.mark.parametrize("mode", ["always", "interval"])
def test_batches_and_records_are_applied_in_the_order_of_their_proposal_and_survive(tmp_path: Path, mode: str) -> None:
    async def body(log: FileLog[Envelope], applied: Applied) -> None:
        futures = [
            log.propose(Envelope(b"a")), log.propose_all(batch_of(b"b", b"c", b"d")), log.propose(Envelope(b"e")),
            log.propose_all(batch_of(b"f")), log.propose_all(batch_of(b"g", b"h")),
        ]  # fmt: skip
        assert log.waiting == 8
        assert await asyncio.gather(*futures) == [1, None, 5, None, None]
        assert (log.waiting, log.last_sequence, log.stats()["last_sequence"]) == (0, 8, 8)
        assert await log.propose(Envelope(b"i")) == 9

    assert run(tmp_path, body, sync_mode=mode).contents == [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i"]

    async def again(log: FileLog[Envelope], applied: Applied) -> None:
        stored = [content[26:] if content[:2] == b"\x20\x01" else content for content in applied.contents]
        assert stored == [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i"]

    run(tmp_path, again)


def test_a_turn_of_the_loop_applies_a_part_of_a_large_batch_only(tmp_path: Path) -> None:
    async def body(log: FileLog[Envelope], applied: Applied) -> None:
        futures = [log.propose_all(batch_of(*([b"%d" % number] * 700))) for number in range(4)]
        await asyncio.gather(*futures)
        turns = 0
        total = 0
        for start, end in applied.parts:
            total = total + end - start if start else end
            assert end - start <= TURN_RECORDS_MAX
            turns += start != 0
        assert turns, "some batch was applied in two turns"

    assert run(tmp_path, body).contents == [b"%d" % (number // 700) for number in range(2800)]


def test_a_batch_is_refused_whole_when_a_record_is_larger_than_a_frame(tmp_path: Path) -> None:
    room = frame_bytes_max(4096, encrypted=False) - frame_overhead(False) - 4 - 26

    async def body(log: FileLog[Envelope], applied: Applied) -> None:
        with pytest.raises(ApiError, match="TM-SYS-4130"):
            await log.propose_all(batch_of(b"a", bytes(room + 1)))
        await log.propose_all(batch_of(b"b", bytes(room), b"c"))

    assert run(tmp_path, body, segment_bytes=4096).contents == [b"b", bytes(room), b"c"]


def test_records_that_wait_are_bounded_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_log, "PENDING_MAX", 10)

    async def body(log: FileLog[Envelope], applied: Applied) -> None:
        futures = [log.propose_all(batch_of(*[b"a"] * 6)), log.propose_all(batch_of(*[b"b"] * 5))]
        futures.append(log.propose_all(batch_of(*[b"c"] * 4)))
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert [getattr(answer, "code", None) for answer in answers] == [None, "TM-SYS-5030", None]

    assert run(tmp_path, body).contents == [b"a"] * 6 + [b"c"] * 4


def test_a_batch_in_a_full_log_is_told_and_what_was_written_of_it_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(directory: Path, size_bytes: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def body(log: FileLog[Envelope], applied: Applied) -> None:
        monkeypatch.setattr(appender, "make_spare", no_room)
        batch = batch_of(*(b"%03d" % number + bytes(500) for number in range(100)))
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            await log.propose_all(batch)
        taken = len(applied.contents)
        assert 0 < taken < 100 and log.state == "full" and log.waiting == 0
        assert [content[:3] for content in applied.contents] == [b"%03d" % number for number in range(taken)]
        monkeypatch.undo()
        await until(lambda: log.writable, "the log looks again")
        await log.propose_all(batch_of(b"again"))
        assert log.last_sequence == taken + 1

    assert run(tmp_path, body, segment_bytes=4096).contents[-1] == b"again"


def test_an_exception_of_apply_stops_everything_after_it(tmp_path: Path) -> None:
    async def body(log: FileLog[Envelope], applied: Applied) -> None:
        applied.fails_at = b"c"
        futures = [log.propose_all(batch_of(b"a")), log.propose_all(batch_of(b"b", b"c", b"d")), log.propose(Envelope(b"e"))]
        futures.append(log.propose_all(batch_of(b"f")))
        first, second, third, fourth = await asyncio.gather(*futures, return_exceptions=True)
        assert first is None and isinstance(second, RuntimeError)
        assert isinstance(third, ApiError) and isinstance(fourth, ApiError)
        assert log.state == "failed" and log.waiting == 0

    assert run(tmp_path, body).contents == [b"a", b"b"]


def test_a_suspended_and_a_closed_log_take_no_batch(tmp_path: Path) -> None:
    async def body(log: FileLog[Envelope], applied: Applied) -> None:
        under_way = log.propose_all(batch_of(b"a", b"b"))
        await log.suspend(lambda: ApiError("TM-SYS-5030"))
        assert under_way.done() and applied.contents == [b"a", b"b"]
        with pytest.raises(ApiError, match="TM-SYS-5030"):
            await log.propose_all(batch_of(b"c"))
        log.resume()
        under_way = log.propose_all(batch_of(b"d", b"e"))
        await log.close()
        assert await under_way is None
        with pytest.raises(ApiError, match="TM-SYS-5001"):
            await log.propose_all(batch_of(b"f"))

    assert run(tmp_path, body).contents == [b"a", b"b", b"d", b"e"]
