"""Power cuts: a file system that stops at once and forgets what was not on the disk; nothing acknowledged may be lost.

    python -m tests.crash.power --count 50 [--seed S] [--directory D] [--no-sync] [--encrypted]

Each round mounts an ext4 image (tests/support/power_disk.py), lets `tests.crash.driver` write, cuts its power at a random
moment, mounts it again and compares the log with every acknowledgement. `--no-sync` makes the driver's syncs do nothing
(strace answers them): then acknowledged records must be lost, or this test sees nothing. Needs root, loop devices,
mkfs.ext4, and strace for `--no-sync`.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.kills import acknowledged, strace
from tests.crash.records import FORMS, Note, read_log
from tests.support.own_mounts import own_mounts
from tests.support.power_disk import PowerDisk
from tests.support.rounds import Lost, long_form

SEGMENT_BYTES = 64 << 10
ROUNDS_PER_LOG = 10
NO_SYNC = ["-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:retval=0"]


def write_until_cut(disk: PowerDisk, prefix: str, delay_s: float, wrapper: list[str], form: str) -> dict[int, Note]:
    """Runs a driver on the mounted disk, cuts the power `delay_s` after its first acknowledgement; what it
    acknowledged."""
    driver = [sys.executable, "-m", "tests.crash.driver", str(disk.point / "wal"), "--prefix", prefix, "--form", form]
    options = ["--records", "100000", "--clients", "8", "--segment-bytes", str(SEGMENT_BYTES), "--retry", "1"]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*wrapper, *driver, *options], stdout=output, stderr=subprocess.DEVNULL)
        try:
            for _ in range(2000):
                if os.fstat(output.fileno()).st_size or process.poll() is not None:
                    break
                time.sleep(0.01)
            time.sleep(delay_s)
            # What is said later is said by a machine without power. It can be wrong: a sync that has begun when ext4 is shut down
            # may return 0 though its journal is gone, while nothing runs on after a real cut.
            said_bytes = os.fstat(output.fileno()).st_size
            disk.cut_power()
            process.wait(30)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return acknowledged(output.read(said_bytes).decode().split("\n")[:-1])


def run(count: int, seed: int, directory: Path, no_sync: bool = False, report_every: int = 0, encrypted: bool = False) -> int:
    """Number of acknowledgements checked. Lost, with the seed, when one is not in the log after a cut. encrypted: in most rounds,
    and off in the others, on the same log."""
    with own_mounts():
        return _run(count, seed, directory, no_sync, report_every, encrypted)


def _run(count: int, seed: int, directory: Path, no_sync: bool, report_every: int, encrypted: bool) -> int:
    randomness = random.Random(seed)
    disk = PowerDisk(directory / "disk.img", directory / "disk")
    wrapper = strace(NO_SYNC) if no_sync else []
    expected: dict[int, Note] = {}
    total = 0
    for index in range(count):
        form = "plain" if not encrypted else randomness.choices(("encrypted", "unsealed"), (3, 1))[0]
        with disk.mounted():
            if index % ROUNDS_PER_LOG == 0:
                shutil.rmtree(disk.point / "wal", ignore_errors=True)
                expected = {}
            fresh = write_until_cut(disk, f"p{index}", randomness.random() * 0.2, wrapper, form)
        total += len(fresh)
        expected |= fresh
        with disk.mounted():
            try:
                notes, _ = read_log(disk.point / "wal", SEGMENT_BYTES, FORMS[form])
            except Exception as error:
                raise Lost(f"seed {seed}, round {index}: the log does not open: {error}") from error
        for sequence, note in expected.items():
            if sequence > len(notes) or notes[sequence - 1] != note:
                raise Lost(f"seed {seed}, round {index}: acknowledged record {sequence} ({note}) is lost")
        if report_every and (index + 1) % report_every == 0:
            print(f"{index + 1} cuts, {total} acknowledged, 0 lost", flush=True)
    return total


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        total = run(arguments.count, arguments.seed, directory, arguments.no_sync, 10, arguments.encrypted)
        return f"{arguments.count} cuts, {total} acknowledged, 0 lost"

    flags = {"--no-sync": "syncs do nothing: a loss must be found", "--encrypted": "with encryption at rest, turned on and off"}
    return long_form(__doc__, 50, long_run, flags)


if __name__ == "__main__":
    sys.exit(main())
