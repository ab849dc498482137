"""SIGKILL at system call N of a writing process: nothing acknowledged is lost, nothing altered, the log always opens
again.

    python -m tests.crash.kills --count 200 [--seed S] [--directory D] [--encrypted]

Each round runs `tests.crash.driver` under strace, which kills it at the N-th call (N random, counted per thread) of a
random set: the file calls of the writer, of recovery and of repair, or every call the running loop makes. Between
rounds a random tear is written behind the log's clean end, as a crash of the machine would, so that repairs are killed
as well. After each round a copy of the directory is recovered here and compared with every acknowledgement since the
log began. Encrypted: encryption is on in most rounds and off in the others, on the same log.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.crash.records import ENCRYPTED, FORMS, Note, read_log
from tests.support.rounds import Lost, long_form
from tokmesh._core import wal
from tokmesh.storage.segment import list_segments

SEGMENT_BYTES = 4096
ROUNDS_PER_LOG = 10
ROUND_SECONDS_MAX = 60
SETS = (
    ("pwrite64,fdatasync", 400),
    ("fsync,rename,fallocate,ftruncate,unlink", 80),
    ("fdatasync,fsync,rename,ftruncate,mkdir", 12),
    ("write,futex,epoll_wait,pwrite64", 400),
)


def strace(options: list[str]) -> list[str]:
    """The command that traces a child with `options`; an error that says what to install when there is no strace."""
    path = shutil.which("strace")
    if path is None:
        raise RuntimeError("strace is not installed: this test cannot run without it")
    return [path, "-f", "-qq", *options]


def run_driver(wrapper: list[str], directory: Path, *arguments: str) -> tuple[int, list[str]]:
    """(exit status, whole stdout lines) of a driver on `directory` under `wrapper`."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "tests.crash.driver", str(directory), *arguments],
        capture_output=True,
        timeout=ROUND_SECONDS_MAX,
        env=environment,
        check=False,
    )
    lines = done.stdout.decode().split("\n")[:-1]
    if b"Traceback" in done.stderr:
        lines.append("E " + done.stderr.decode().strip().rsplit("\n", 1)[-1])
    return done.returncode, lines


def acknowledged(lines: list[str]) -> dict[int, Note]:
    """Records by sequence, as the driver reported them."""
    parts = [line.split(" ") for line in lines if line.startswith("A ")]
    return {int(sequence): Note(text, int(padding)) for _, sequence, text, padding in parts}


def check(directory: Path, expected: dict[int, Note], scratch: Path, form: str = "plain") -> int:
    """Recovers a copy of the log and compares; returns the number of records in it. Lost."""
    if not directory.exists():
        if expected:
            raise Lost("the log's directory is gone")
        return 0
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(directory, scratch)
    try:
        notes, _ = read_log(scratch, SEGMENT_BYTES, FORMS[form])
    except Exception as error:
        raise Lost(f"the log does not open: {error}") from error
    for sequence, note in expected.items():
        if sequence > len(notes) or notes[sequence - 1] != note:
            raise Lost(f"acknowledged record {sequence} ({note}) is not in the log")
    return len(notes)


def tear(directory: Path, randomness: random.Random) -> None:
    """Writes part of a frame behind the clean end of the last segment, unless it already ends in a tear."""
    segments = list_segments(directory) if directory.exists() else []
    if not segments:
        return
    path = segments[-1][1]
    data = path.read_bytes()
    header = wal.decode_segment_header(data)
    assert header is not None
    opener = ENCRYPTED.opener(path, header)
    offset, sequence, chain = wal.SEGMENT_HEADER_BYTES, header.first_sequence, header.chain
    while True:  # ends with the segment
        status, frame = wal.read_frame(data, offset, header.segment_id, sequence, chain, opener)
        if frame is None:
            break
        offset, sequence, chain = frame.end, sequence + len(frame.records), frame.chain
    record = Note(f"torn.{sequence}", randomness.randrange(200)).encode()
    whole, _ = wal.encode_frame(header.segment_id, sequence, sequence - 1, chain, [record])
    if status != wal.FrameStatus.FRAME_END or offset + len(whole) > len(data):
        return
    first, last = sorted(randomness.sample(range(len(whole)), 2))
    kept = whole[:last] if randomness.random() < 0.5 else bytes(first + 1) + whole[first + 1 :]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(kept)


def run(count: int, seed: int, directory: Path, report_every: int = 0, encrypted: bool = False) -> tuple[int, int]:
    """(rounds in which the kill struck, acknowledgements checked). Lost, with the seed in its text."""
    randomness = random.Random(seed)
    log, scratch = directory / "wal", directory / "copy"
    expected: dict[int, Note] = {}
    killed = total = 0
    for index in range(count):
        if index % ROUNDS_PER_LOG == 0:
            shutil.rmtree(log, ignore_errors=True)
            expected = {}
        calls, bound = SETS[index % len(SETS)]
        when = randomness.randint(1, bound) if randomness.random() < 0.7 else randomness.randint(1, 12)
        inject = f"inject={calls}:signal=SIGKILL:when={when}"
        wrapper = strace(["-o", "/dev/null", "-e", f"trace={calls}", "-e", inject])
        form = "plain" if not encrypted else randomness.choices(("encrypted", "unsealed"), (3, 1))[0]
        options = ("--prefix", f"k{index}", "--segment-bytes", str(SEGMENT_BYTES), "--form", form)
        status, lines = run_driver(wrapper, log, *options)
        place = f"seed {seed}, round {index}: {calls} when={when}"
        for line in lines:
            if line[:2] in ("E ", "F "):
                raise Lost(f"{place}: the driver said {line}")
        struck = not lines or not lines[-1].startswith("S ")
        killed += struck
        fresh = acknowledged(lines)
        if fresh.keys() & expected.keys():
            raise Lost(f"{place}: a sequence was given twice")
        expected |= fresh
        total += len(fresh)
        try:
            check(log, expected, scratch, form)
            if randomness.random() < 0.5:
                tear(log, randomness)
                check(log, expected, scratch, form)
        except Lost as error:
            raise Lost(f"{place}: {error} (status {status})") from error
        if report_every and (index + 1) % report_every == 0:
            print(f"{index + 1} rounds, {killed} killed, {total} acknowledged, 0 lost", flush=True)
    return killed, total


def main() -> int:
    def long_run(arguments: argparse.Namespace, directory: Path) -> str:
        killed, total = run(arguments.count, arguments.seed, directory, 20, arguments.encrypted)
        return f"{arguments.count} rounds, {killed} killed, {total} acknowledged, 0 lost"

    return long_form(__doc__, 200, long_run, {"--encrypted": "with encryption at rest, turned on and off"})


if __name__ == "__main__":
    sys.exit(main())
