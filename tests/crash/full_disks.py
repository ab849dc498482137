"""The disk is full at every byte of a log segment and of a snapshot, and at every page of a real one that is.

    python -m tests.crash.full_disks [--count 1] [--seed S] [--directory D]

A limit on the size of files stops a write at any byte, with EFBIG instead of ENOSPC, which the log takes alike; a small tmpfs,
filled to every page, is the kernel's own ENOSPC. What was acknowledged stays, no draft is left, and once there is room everything
goes on. --count: look at one byte in so many.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.crash.kills import acknowledged, run_driver
from tests.crash.records import FORMS, Note, make_log, read_log
from tests.support.rounds import Lost, long_form
from tests.support.server import TokMeshProcess
from tests.support.small_disk import PAGE_BYTES, fill, small_disk
from tests.support.snapshots import Made, write_snapshot
from tests.support.waiting import until, wait_until
from tokmesh._core import wal
from tokmesh.errors import ApiError
from tokmesh.log.file_log import FileLog
from tokmesh.storage.segment import NO_ROOM

SEGMENT_BYTES = 4096
PAGED_SEGMENT_BYTES = 64 << 10
SEGMENT_PAGES = PAGED_SEGMENT_BYTES // PAGE_BYTES
SNAPSHOTS = "/admin/v1/backups/snapshots"


@contextlib.contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_log(first: int, step: int, directory: Path) -> int:
    """How many sizes a segment was stopped at. Lost."""
    sizes = range(max(first, wal.SEGMENT_HEADER_BYTES), SEGMENT_BYTES, step)
    for size in sizes:
        log, form = directory / f"wal-{size}", "encrypted" if size % 2 else "plain"
        _, lines = run_driver([], log, "--file-size-limit", str(size), "--retry", "1", "--records", "10", "--form", form)
        stats = json.loads(lines[-1][2:]) if lines and lines[-1].startswith("S ") else {}
        if stats.get("state") != "full":
            raise Lost(f"limit {size}: {lines[-1:]}")
        notes, report = read_log(log, SEGMENT_BYTES, FORMS[form])
        if report.torn_tail or len(notes) != len(acknowledged(lines)):
            raise Lost(f"limit {size}: {len(notes)} records, {len(acknowledged(lines))} acknowledged, torn: {report.torn_tail}")
        for sequence, note in acknowledged(lines).items():
            if notes[sequence - 1] != note:
                raise Lost(f"limit {size}: record {sequence} is another")
    return len(sizes)


async def propose_until_full(log: FileLog[Note], name: str, size: int = 500) -> int:
    for index in range(10_000):
        try:
            await log.propose(Note(f"{name}.{index}", size))
        except ApiError as error:
            assert error.code == "TM-SYS-5001" and error.details == {"reason": "disk full"}
            return index
    raise AssertionError("never full")


async def until_writable(log: FileLog[Note]) -> None:
    await until(lambda: log.writable, "the log notices that there is room again")


def run_pages(disk: Path, form: str, step: int) -> int:
    """How many fillings of a disk of 512k around a rotation of the log, which took writes again when there was room. Lost."""

    async def life(free_pages: int) -> list[Note]:
        log = make_log(disk / "wal", PAGED_SEGMENT_BYTES, keys=FORMS[form])
        notes: list[Note] = []
        log.recover(lambda sequence, note: notes.append(note))
        log.start(asyncio.get_running_loop(), lambda sequence, note: notes.append(note))
        fill(disk / "filler", free_pages)
        await propose_until_full(log, f"p{free_pages}")
        (disk / "filler").unlink()
        await until_writable(log)
        await log.propose(Note("again"))
        await log.close()
        return notes

    fillings = range(0, SEGMENT_PAGES + 3, step)
    for free_pages in fillings:
        notes = asyncio.run(asyncio.wait_for(life(free_pages), 60))
        if read_log(disk / "wal", PAGED_SEGMENT_BYTES, FORMS[form])[0] != notes:
            raise Lost(f"{free_pages} pages: what was acknowledged is not what the log holds")
        for path in (disk / "wal").iterdir():
            path.unlink()
    return len(fillings)


def run_snapshot(step: int, directory: Path, form: str) -> int:
    """How many sizes the file of a snapshot was stopped at; each time nothing was left, and the one before it stayed. Lost."""
    directory.mkdir(mode=0o700)
    made = Made(FORMS[form].keys, sessions=40)
    first = write_snapshot(directory, made, 1)
    original = first.read_bytes()
    sizes = range(0, len(original), step)
    for size in sizes:
        try:
            with file_size_limit(size):
                write_snapshot(directory, made, 2)
            raise Lost(f"a snapshot of {len(original)} bytes came to be within {size}")
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise Lost(f"limit {size}: {error}") from error
        left = {path.name: path.read_bytes() for path in directory.iterdir()}
        if left != {first.name: original}:
            raise Lost(f"limit {size}: left behind {sorted(left)}")
    write_snapshot(directory, made, 2)
    return len(sizes)


def run_server(directory: Path, pages: range) -> tuple[int, int]:
    """(snapshots refused, taken) of a server with so many pages left on its disk. Lost."""
    refused = taken = 0
    with small_disk(directory / "disk", "8m") as disk, TokMeshProcess(disk, "--storage.wal.segment_size=1MB") as server:
        made = [server.create_session(f"u{number}", data={"n": "x" * 999}) for number in range(60)]
        for free_pages in pages:
            filler = disk / "filler"
            fill(filler, free_pages)
            status = server.request("POST", SNAPSHOTS)[0]
            refused += status == 503
            taken += status == 200
            if list((server.directory / "snapshots").glob("*.tmp")) or not server.validate(made[0]["token"])["valid"]:
                raise Lost(f"{free_pages} pages: a draft is left, or reads are not up")
            filler.unlink()
            wait_until(lambda: server.request("GET", "/ready", key=None)[0] == 200, "there is room again")
            made.append(server.create_session(f"v{free_pages}"))
        server.kill()
        server.start()
        if not all(server.validate(each["token"])["valid"] for each in made):
            raise Lost("an acknowledged session is lost")
    return refused, taken


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        log = run_log(0, arguments.count, directory)
        snapshot = sum(run_snapshot(arguments.count, directory / form, form) for form in ("plain", "encrypted"))
        return f"full at {log} bytes of the log, {snapshot} of snapshots, pages {run_server(directory, range(12))}: 0 lost"

    return long_form(__doc__, 1, long_run)


if __name__ == "__main__":
    sys.exit(main())
