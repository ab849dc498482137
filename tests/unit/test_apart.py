"""A node that was found wrong stands apart whatever happens, or has begun anew with all that it had set aside."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.kills import strace
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import wait_until
from tokmesh.config import ConfigError
from tokmesh.host.apart import AGAIN_MS, Anew, Apart, begin_anew

T0 = 1_734_567_890_000
CREATED_NS = T0 * 1_000_000 + 1
CLUSTER_ID = b"c" * 16
ANEW = Anew(T0, CREATED_NS, CLUSTER_ID)
HAD = {"log/wal-1.log": b"a", "log/wal-1.log.broken": b"b", "snapshots/snapshot-1.tms": b"sealed"}
OWN = {"node_id": b"tmnd-a", "audit.jsonl": b"{}"}
CALLS = "mkdir,rename,unlink,unlinkat,rmdir,fsync,fdatasync"
ROUNDS_MAX = 100


def found_wrong(directory: Path, time_ms: int = T0) -> Apart:
    """As a serving process does it; returns when it is written down."""
    decided: list[bool] = []
    apart = Apart(directory, lambda: decided.append(True))
    apart.begin("its table differs", time_ms, CREATED_NS, CLUSTER_ID)
    wait_until(lambda: Apart(directory).reason is not None, "it is written down")
    if apart.anew is not None:
        wait_until(lambda: decided, "that is told")
    return apart


def node(directory: Path) -> Path:
    """The directory of one that was found wrong, with something set aside before."""
    for name, content in {**HAD, **OWN, "log/lock": b"", "log/spare.tmp": b"", f"set_aside/{T0 - 5}/log/old": b""}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
    found_wrong(directory)
    return directory


def has_begun_anew(directory: Path) -> bool:
    """Whether it stands apart no more, with everything where it belongs; False: it stands apart still."""
    apart = Apart(directory)
    if apart.reason is not None:
        assert apart.anew == ANEW
        return False
    assert apart.began == ANEW and not (directory / "stands_apart").exists()
    for name, content in HAD.items():
        aside = directory / "set_aside" / str(T0) / name
        assert aside.read_bytes() == content and not (directory / name).exists()
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600 and stat.S_IMODE(aside.parent.stat().st_mode) == 0o700
    assert [path.name for path in (directory / "set_aside").iterdir()] == [str(T0)], "the newest only"
    assert all((directory / name).read_bytes() == content for name, content in OWN.items())
    assert (directory / "log" / "lock").exists(), "it is held"
    return True


def test_what_it_had_is_set_aside_and_it_begins_anew_once(tmp_path: Path) -> None:
    node(tmp_path)
    begin_anew(tmp_path)
    assert has_begun_anew(tmp_path)
    (tmp_path / "log" / "wal-1.log").write_bytes(b"new")
    begin_anew(tmp_path)
    assert (tmp_path / "log" / "wal-1.log").read_bytes() == b"new", "nothing is to be moved any more"


def test_a_kill_at_any_call_leaves_it_standing_apart_or_begun_anew_and_the_next_start_goes_on(tmp_path: Path) -> None:
    program = "import sys, pathlib; from tokmesh.host.apart import begin_anew; begin_anew(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    outcomes = []
    for number in range(1, ROUNDS_MAX):
        directory = node(tmp_path / str(number))
        wrapper = strace(["-o", "/dev/null", "-e", f"trace={CALLS}", "-e", f"inject={CALLS}:signal=SIGKILL:when={number}"])
        done = subprocess.run([*wrapper, sys.executable, "-c", program, str(directory)], env=environment, check=False)
        outcomes.append(has_begun_anew(directory))
        if done.returncode == 0:
            break
        begin_anew(directory)
        assert has_begun_anew(directory)
    assert outcomes[-1] and len(outcomes) > 15 and not any(outcomes[:-2]), "the last name is the last step"


@pytest.mark.parametrize(("later_ms", "may"), [(AGAIN_MS - 1, False), (AGAIN_MS, True), (-1, False)])
def test_it_does_not_begin_anew_twice_within_an_hour(later_ms: int, may: bool, tmp_path: Path) -> None:
    node(tmp_path)
    begin_anew(tmp_path)
    (tmp_path / "log" / "wal-1.log").write_bytes(b"wrong again")
    apart = found_wrong(tmp_path, T0 + later_ms)
    assert (apart.anew is not None, "begins anew" in apart.cure) == (may, may)
    begin_anew(tmp_path)
    assert (Apart(tmp_path).reason is None) == may
    assert (tmp_path / "log" / "wal-1.log").exists() != may


def test_however_long_the_reason_is_it_begins_anew(tmp_path: Path) -> None:
    reason = "its table differs in shard é " * 100
    Apart(tmp_path).begin(reason, T0, CREATED_NS, CLUSTER_ID)
    wait_until(lambda: Apart(tmp_path).reason is not None, "it is written down")
    apart = Apart(tmp_path)
    assert apart.anew == ANEW and apart.reason is not None
    assert reason.startswith(apart.reason.rstrip("\ufffd")) and len(apart.reason) > 800
    begin_anew(tmp_path)
    assert (Apart(tmp_path).reason, Apart(tmp_path).began) == (None, ANEW)


def test_what_an_earlier_release_wrote_with_the_reason_first_is_understood(tmp_path: Path) -> None:
    (tmp_path / "stands_apart").write_text("its table differs\n" + ANEW.encode())
    apart = Apart(tmp_path)
    assert (apart.reason, apart.anew) == ("its table differs", ANEW)


def test_a_node_that_waits_for_a_hand_stands_apart_at_every_later_start(tmp_path: Path) -> None:
    (tmp_path / "began_anew").write_text(ANEW.encode())
    assert found_wrong(tmp_path, T0 + 1).reason == "its table differs"
    for _ in range(2):
        begin_anew(tmp_path)
        apart = Apart(tmp_path)
        assert (apart.reason, apart.anew) == ("its table differs", None)
    assert stat.S_IMODE((tmp_path / "stands_apart").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"x" * 100_000, b"begins anew: 1 2 nonsense\n"])
def test_a_node_stands_apart_whatever_its_file_says(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "stands_apart").write_bytes(content)
    begin_anew(tmp_path)
    apart = Apart(tmp_path)
    assert apart.reason and len(apart.reason) <= 1024 and apart.anew is None


def test_what_a_full_disk_did_not_take_is_written_down_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        ballast = disk / "ballast"
        fill(ballast)
        decided: list[bool] = []
        Apart(disk, lambda: decided.append(True)).begin("its table differs", T0, CREATED_NS, CLUSTER_ID)
        wait_until(lambda: "could not be written down" in caplog.text, "it is told")
        assert Apart(disk).reason is None and not decided
        ballast.unlink()
        wait_until(lambda: Apart(disk).reason == "its table differs", "it is written down")
        wait_until(lambda: decided, "that is told")


def test_a_node_of_which_it_cannot_be_seen_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "stands_apart").mkdir()
    (tmp_path / "began").mkdir()
    (tmp_path / "began" / "began_anew").write_text("when?")
    for directory in (tmp_path, tmp_path / "began"):
        with pytest.raises(ConfigError) as caught:
            Apart(directory)
        assert [problem.code for problem in caught.value.problems] == ["TM-CFG-1004"]


def test_what_cannot_be_set_aside_keeps_the_node_from_starting_and_apart(tmp_path: Path) -> None:
    (node(tmp_path) / "set_aside" / str(T0)).write_bytes(b"in the way")
    with pytest.raises(ConfigError):
        begin_anew(tmp_path)
    assert Apart(tmp_path).anew == ANEW
