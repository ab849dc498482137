"""In what order files are written, synced, named and removed: what no crash of a machine at hand would show.

A file system may keep a rename without its sync, or names without contents, for years; so the calls themselves are looked at. From
a trace of a process the files are followed: what of each is written and not synced, which names are not durable. Then

- an answer goes out only when nothing of the log is unsynced, and no name of a segment;
- a file gets its name only when its contents are synced;
- a snapshot gets its name only when the log is durable that far;
- a segment or a snapshot is removed only when no name among the snapshots is left to be synced.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.kills import run_driver, strace
from tests.crash.snapshot_kills import OPTIONS, SNAPSHOTS, Ledger
from tests.support.encryption import encryption
from tests.support.server import TokMeshProcess
from tests.support.tracing_calls import traced
from tests.support.waiting import wait_until

CALLS = "pwrite64,write,fsync,fdatasync,rename,unlink"
_CALL = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_PATH = re.compile(r"^\d+<(.*?)>")
_NAMES = re.compile(r'"(.*?)"')
_SEGMENT = "/wal-"


def calls_of(trace: Path) -> Iterator[tuple[str, str]]:
    """(name, arguments) of successful calls, in the order in which they ended."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").split("\n"):
        if match := _UNFINISHED.match(line):
            begun[match[1]] = match[2]
            continue
        if match := _RESUMED.match(line):
            line = f"{match[1]} {begun.pop(match[1])}{match[2]}"
        call = _CALL.match(line)
        if call is not None and int(call["result"]) >= 0:
            yield call["name"], call["arguments"]


class Follower:
    """What is unsynced after the calls so far. broken: rules that a call broke, in words."""

    def __init__(self) -> None:
        self.unsynced: set[str] = set()  # files with contents, directories with names
        self.broken: list[str] = []
        self.answers = self.renames = self.removals = 0

    def follow(self, name: str, arguments: str) -> None:
        found = _PATH.match(arguments)
        path = found[1] if found else ""
        if name == "pwrite64" and r'"\0\0\0\0' not in arguments:  # what is written ahead, zeros over zeros, belongs to no answer
            self.unsynced.add(path)
        elif name in ("fsync", "fdatasync"):
            self.unsynced.discard(path)
        elif name == "rename":
            self._rename(*_NAMES.findall(arguments)[:2])
        elif name == "unlink" and (_SEGMENT in arguments or ".tms" in arguments):
            self.removals += 1
            self._require(not any(each.endswith("/snapshots") for each in self.unsynced), f"removed too early: {arguments}")

    def answer(self) -> None:
        """An acknowledgement goes out now."""
        self.answers += 1
        of_the_log = [each for each in self.unsynced if _SEGMENT in each or each.endswith(("/wal", "/log"))]
        self._require(not of_the_log, f"answered before a sync of {of_the_log}")

    def _rename(self, old: str, new: str) -> None:
        if not new.endswith((".log", ".tms")):
            return
        self.renames += 1
        self._require(old not in self.unsynced, f"named before its sync: {new}")
        if new.endswith(".tms"):
            self._require(not any(_SEGMENT in each for each in self.unsynced), f"named before the log is durable: {new}")
        self.unsynced.discard(old)
        self.unsynced.add(str(Path(new).parent))

    def _require(self, kept: bool, text: str) -> None:
        if not kept:
            self.broken.append(text)


@pytest.mark.parametrize("form", ["plain", "encrypted"])
def test_the_log_is_synced_with_its_names_before_it_answers(tmp_path: Path, form: str) -> None:
    trace = tmp_path / "trace"
    wrapper = strace(["-y", "-s", "16", "-o", str(trace), "-e", f"trace={CALLS}"])
    status, _ = run_driver(wrapper, tmp_path / "wal", "--form", form, "--clients", "1", "--records", "300")
    assert status == 0
    follower = Follower()
    for name, arguments in calls_of(trace):
        follower.follow(name, arguments)
        if name == "write" and '"A ' in arguments:
            follower.answer()
    assert follower.answers == 300 and follower.renames > 10
    assert not follower.broken


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_a_snapshot_is_named_when_it_and_the_log_are_synced_and_things_are_removed_after_that(tmp_path: Path, sync: str) -> None:
    options = ("--storage.wal.sync_interval=500ms", f"--storage.wal.sync_mode={sync}", *OPTIONS)
    with TokMeshProcess(tmp_path, *options, *encryption(tmp_path)) as server:
        ledger = Ledger(server)
        for _ in range(3):
            ledger.write()
            server.data("POST", SNAPSHOTS)
        before = sorted((server.directory / "log").glob("wal-*"))
        with traced(server.pid, tmp_path / "trace", CALLS):
            ledger.write()
            server.data("POST", SNAPSHOTS)
            wait_until(lambda: sorted((server.directory / "log").glob("wal-*"))[0] != before[0], "segments are dropped")
            server.data("POST", SNAPSHOTS)  # by the thread that drops them, so that the calls before are in the trace
    follower = Follower()
    for name, arguments in calls_of(tmp_path / "trace"):
        follower.follow(name, arguments)
    assert follower.renames >= 2 and follower.removals >= 2
    assert not follower.broken
