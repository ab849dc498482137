"""Every fault that storage must survive, at full numbers or a share of them, and one table of what came of it.

    python -m tests.crash.torture [--scale 1] [--seed S] [--jobs N] [--only WORD] [--directory D]

A row is one of the loops beside this file; large ones are cut into pieces of their own seeds, so that they run side by side and a
failure is repeated in a minute. A row counts as lost when an acknowledged change was missing or altered, as wrong when anything
else was not as it has to be; the control row must lose, or the rows above it prove nothing. Exit code 1 when a row is not as it
must be. With less than all, one place of those that are gone through one by one is looked at in 1/scale.
tests/cluster/torture.py has rows of its own for the same table.
"""

import argparse
import importlib
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tests.crash import (
    clock_jumps,
    flips,
    full_disks,
    histories,
    kills,
    power,
    server_kills,
    snapshot_flips,
    snapshot_kills,
    sync_failures,
    two_processes,
)
from tests.crash.records import FORMS
from tests.support.rounds import SEEDS, Lost
from tests.support.small_disk import small_disk

# A kill by chance may find the process ended already: so many rounds give 10,000 that struck.
LOG_ROUNDS: Final = 13_000
CONTROL_ROUNDS: Final = 5  # without syncs the first cuts lose something


class Row(NamedTuple):
    """full: how many at scale 1; piece: how many at most in one piece; run: (count, number of the piece, seed, empty folder) → how
    many were done, and what else to tell. step: the row is one run over places, of which it looks at every so many: count is then
    the step, and full a guess."""

    name: str
    full: int
    piece: int
    run: Callable[[int, int, int, Path], tuple[int, str]]
    step: bool = False


@dataclass
class Outcome:
    """What came of the pieces of a row so far."""

    done: int = 0
    lost: int = 0
    wrong: int = 0
    seconds: float = 0.0
    told: tuple[str, ...] = ()


def log_kills(encrypted: bool) -> Callable[[int, int, int, Path], tuple[int, str]]:
    def run(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
        killed, acknowledged = kills.run(count, seed, folder, encrypted=encrypted)
        return killed, f"{acknowledged} acknowledged"

    return run


def serving_kills(encrypted: bool) -> Callable[[int, int, int, Path], tuple[int, str]]:
    def run(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
        totals = server_kills.run(count, seed, folder, encrypted=encrypted, snapshots=True)
        return count, f"{totals['checked']} compared, {totals['snapshots']} starts from snapshots"

    return run


def taking_kills(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    totals = snapshot_kills.run(count, seed, folder, encrypted=number % 2 == 1)
    return totals["killed"], f"{totals['compared']} compared, {totals['dropped']} dropped the log"


def power_cuts(encrypted: bool) -> Callable[[int, int, int, Path], tuple[int, str]]:
    def run(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
        return count, f"{power.run(count, seed, folder, encrypted=encrypted)} acknowledged"

    return run


def power_without_syncs(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    try:
        power.run(CONTROL_ROUNDS, seed, folder, no_sync=True)
    except Lost:
        return 1, "1 lost, as it must"
    raise AssertionError("nothing was lost without syncs: the power cuts see nothing")


def log_flips(form: str) -> Callable[[int, int, int, Path], tuple[int, str]]:
    def run(step: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
        bits = sum(sum(flips.run(64 << 10, step, seal, folder / f"{seal}", FORMS[form]).values()) for seal in (False, True))
        return bits + flips.run_lengths(64 << 10, step, folder / "lengths", FORMS[form]), ""

    return run


def file_flips(form: str) -> Callable[[int, int, int, Path], tuple[int, str]]:
    def run(step: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
        return sum(snapshot_flips.run(0, step, folder / form, form)), ""

    return run


def failing_syncs(step: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    struck, before = sync_failures.run(1, 200, step, folder)
    return struck, f"{before} acknowledged before, 0 after"


def full_log(step: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    return full_disks.run_log(0, step, folder), ""


def full_pages(step: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    with small_disk(folder / "disk", "512k") as disk:
        return sum(full_disks.run_pages(disk, form, min(step, 4)) for form in ("plain", "encrypted")), ""


def full_snapshot(step: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    return sum(full_disks.run_snapshot(step, folder / form, form) for form in ("plain", "encrypted")), ""


def full_server(step: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    refused, taken = full_disks.run_server(folder, range(0, 16, min(step, 4)))
    return refused + taken, f"{refused} snapshots refused"


def jumps(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    ended, jumped = clock_jumps.run(count, seed, folder)
    return ended, f"{jumped} jumps"


def random_histories(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    totals = histories.run(count, seed, folder)
    killed = totals["kill"] + totals["kill in a change"]
    return count, f"{totals['changes']} changes, {killed} kills, {totals['snapshot']} snapshots, {totals['restore']} restores"


def rivals(count: int, number: int, seed: int, folder: Path) -> tuple[int, str]:
    refused, _ = two_processes.run(count, seed, folder)
    return count, f"{refused} refused"


ROWS: Final = (
    Row("SIGKILL of the log's writer at a system call, plain", LOG_ROUNDS, 200, log_kills(False)),
    Row("SIGKILL of the log's writer at a system call, encrypted", LOG_ROUNDS, 200, log_kills(True)),
    Row("SIGKILL of a server under load, taking snapshots", 10_000, 100, serving_kills(False)),
    Row("SIGKILL of a server under load, taking snapshots, encrypted", 2_000, 100, serving_kills(True)),
    Row("SIGKILL of a server at every call of a snapshot", 1_000, 100, taking_kills),
    Row("power cut, plain", 10_000, 200, power_cuts(False)),
    Row("power cut, encrypted", 10_000, 200, power_cuts(True)),
    Row("power cut, syncs that do nothing (the control: must lose)", 1, 1, power_without_syncs),
    Row("bit or length of a 64 KB log, plain", 1, 1, log_flips("plain"), step=True),
    Row("bit or length of a 64 KB log, encrypted", 1, 1, log_flips("encrypted"), step=True),
    Row("bit or length of a snapshot, plain", 1, 1, file_flips("plain"), step=True),
    Row("bit or length of a snapshot, encrypted", 1, 1, file_flips("encrypted"), step=True),
    Row("EIO of fdatasync at N up to 200", 1, 1, failing_syncs, step=True),
    Row("disk full at a byte of a log segment", 1, 1, full_log, step=True),
    Row("disk full at a page around a rotation of the log", 1, 1, full_pages, step=True),
    Row("disk full at a byte of a snapshot", 1, 1, full_snapshot, step=True),
    Row("disk full at a page, a server taking snapshots", 1, 1, full_server, step=True),
    Row("expiry while the wall clock jumps ±10 years", 100, 10, jumps),
    Row("random history against a dictionary", 1_000, 10, random_histories),
    Row("three processes on one directory", 200, 50, rivals),
)


class Piece(NamedTuple):
    """Part of a row: what one process does at a time. module: whose `ROWS`; row: its number; rounds: or, of a row of places, the
    step."""

    module: str
    row: int
    rounds: int
    number: int
    seed: int


def rows_of(module: str) -> tuple[Row, ...]:
    """Of that module, which another process can import as well."""
    rows: tuple[Row, ...] = importlib.import_module(module).ROWS
    return rows


def pieces_of(module: str, scale: float, seed: int, only: str) -> list[Piece]:
    """All that has to be done."""
    source = random.Random(seed)
    pieces = []
    for index, row in enumerate(rows_of(module)):
        if only not in row.name:
            continue
        if row.step:
            pieces.append(Piece(module, index, max(1, round(1 / scale)), 0, source.randrange(SEEDS)))
            continue
        left, number = max(1, math.ceil(row.full * scale)), 0
        while left > 0:
            pieces.append(Piece(module, index, min(left, row.piece), number, source.randrange(SEEDS)))
            left -= row.piece
            number += 1
    return pieces


def do(piece: Piece, directory: Path | None) -> Outcome:
    """One piece, in a process of the pool."""
    row, started_s = rows_of(piece.module)[piece.row], time.monotonic()
    outcome = Outcome()
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        try:
            outcome.done, told = row.run(piece.rounds, piece.number, piece.seed, Path(folder))
            outcome.told = (told,) if told else ()
        except Lost as lost:
            outcome.lost, outcome.told = 1, (f"LOST (piece seed {piece.seed}): {lost}",)
        except Exception as error:
            outcome.wrong, outcome.told = 1, (f"WRONG (piece seed {piece.seed}): {type(error).__name__}: {error}",)
    outcome.seconds = time.monotonic() - started_s
    return outcome


def table_of(rows: tuple[Row, ...], outcomes: dict[int, Outcome]) -> str:
    """One line a row; what was told in numbers is added up."""
    lines = [f"{'what':60} {'how many':>9} {'lost':>5} {'wrong':>6} {'seconds':>8}  more"]
    for index, found in sorted(outcomes.items()):
        row = rows[index]
        lines.append(
            f"{row.name:60} {found.done:9} {found.lost:5} {found.wrong:6} {found.seconds:8.0f}  {added_up(found.told)}".rstrip()
        )
    return "\n".join(lines)


def added_up(told: tuple[str, ...]) -> str:
    """ "3 a, 4 b" and "1 a, 2 b" are "4 a, 6 b", of "at most 3 c" the largest; what is no such list stands in its place."""
    sums: dict[str, int] = {}
    largest: dict[str, int] = {}
    other = []
    for each in told:
        if each.startswith(("LOST", "WRONG")):
            other.append(each.split("\n")[0])
            continue
        for part in each.split(", "):
            number, _, name = part.partition(" ")
            if part.startswith("at most "):
                number, _, name = part.removeprefix("at most ").partition(" ")
                largest[name] = max(largest.get(name, 0), int(number))
            elif number.isdecimal():
                sums[name] = sums.get(name, 0) + int(number)
            else:
                other.append(part)
    bounds = (f"at most {number} {name}" for name, number in largest.items())
    return ", ".join([*(f"{number} {name}" for name, number in sums.items()), *bounds, *dict.fromkeys(other)])


def main(module: str, description: str | None, jobs: int) -> int:
    """The command line of a module that has `ROWS`. jobs: pieces at a time, unless the command line says otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="a share of the full numbers")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(SEEDS), help="repeats a run")
    parser.add_argument("--jobs", type=int, default=jobs, help="pieces at a time")
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary place when left out")
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error("--scale is above 0 and at most 1")
    print(f"seed {arguments.seed}", flush=True)
    outcomes: dict[int, Outcome] = {}
    rows, pieces = rows_of(module), pieces_of(module, arguments.scale, arguments.seed, arguments.only)
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        under_way = {pool.submit(do, piece, arguments.directory): piece for piece in pieces}
        for count, future in enumerate(as_completed(under_way), 1):
            piece, found = under_way[future], future.result()
            outcome = outcomes.setdefault(piece.row, Outcome())
            outcome.done += found.done
            outcome.lost += found.lost
            outcome.wrong += found.wrong
            outcome.seconds += found.seconds
            outcome.told += found.told
            if found.lost or found.wrong:
                print(f"{rows[piece.row].name}: {found.told[0]}", file=sys.stderr, flush=True)
            print(f"{count} of {len(pieces)} pieces: {rows[piece.row].name}", flush=True)
    print(table_of(rows, outcomes))
    return int(any(outcome.lost or outcome.wrong for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main("tests.crash.torture", __doc__, len(os.sched_getaffinity(0))))
