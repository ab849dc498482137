"""Logs that old releases wrote are read into exactly what they meant, and today's encoder still writes their bytes."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.golden import make
from tests.golden.plain_reader import crc32c, read_log
from tests.support.server import TokMeshProcess
from tokmesh._core import wal
from tokmesh._core.tail import Tail
from tokmesh.log.record import AnyRecord, decode
from tokmesh.log.record_summary import KINDS

# What was released, to the byte. A line is added for a new format; none is ever changed.
SHA256 = {
    "v1/expected.json": "37d1adbbda71882486c872200ba6626d74ffccb7db74bc08e98090cd7522ca5a",
    "v1/log/wal-00000000000000000001.log": "d6b8185332501a8c908ba280d5dda337ac276af9c7e1962150e327bc3c817c6e",
    "v1/log/wal-00000000000000000015.log": "e085929630bde285586b651112a773c512c6dc1d7e9312b04ea34adffacb4def",
    "v1/log/wal-00000000000000000020.log": "723512188b20b8a2e531660e18e4532945dd6099efc6d4c25a4511ed61e241a2",
    "v1-cluster/expected.json": "2a9e25061e3f036bec28dc245a2098acced5c9042340e95ba48dea0ecc00790e",
    "v1-cluster/log/wal-00000000000000000001.log": "b4ebd29e9f3b508b89b2c7904baf9cabf8ab0ce4a41174838cc65b67b72880ba",
    "v1-encrypted/log/wal-00000000000000000001.log": "efd85fc3297e2b8d813d93de7e80e502e8db37782b6378f6603981a8a45cb852",
    "v1-encrypted/log/wal-00000000000000000005.log": "32c07a48c2649febd953063a0120043fb525882098c7294def2421c0890dcd50",
    "v1-encrypted/log/wal-00000000000000000014.log": "bec925394b4abd9935c92e1bd7ee22fa3e24d81ffcf75aa055cef887a7bf5bd7",
    "v1-encrypted/log/wal-00000000000000000018.log": "be0763c9c3b5eaca9fdc32524669cfe592ffd572468465a48a451f71dd480c51",
}
VERSIONS = sorted({name.partition("/")[0] for name in SHA256 if "-" not in name.partition("/")[0]})
CLUSTER_KINDS = {"ClusterStated", "KeyStated", "NodeStated", "SessionStated", "StreamBound", "Streamed"}
# Younger than the golden log of a cluster; test_record.py has their bytes.
LATER_KINDS = {"PlaceStated", "SessionHeld", "ShardLoaded", "ShardsHeld"}
NODE_KINDS = set(KINDS) - CLUSTER_KINDS - LATER_KINDS  # of a node alone


def expected_of(version: str) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((make.FOLDER / version / "expected.json").read_text(encoding="utf-8"))
    return expected


def copied(version: str, target: Path) -> Path:
    """The golden log as a server would have left it, in `target`: git keeps no modes."""
    target.mkdir(mode=0o700)
    for path in (make.FOLDER / version / "log").iterdir():
        shutil.copyfile(path, target / path.name)
        (target / path.name).chmod(0o600)
    return target


def test_nobody_has_changed_a_golden_file() -> None:
    found = {
        str(path.relative_to(make.FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in make.FOLDER.rglob("v*/**/*")
        if path.is_file()
    }
    assert found == SHA256


def test_every_format_up_to_the_current_one_has_a_golden_log() -> None:
    assert [f"v{number}" for number in range(1, wal.FORMAT_VERSION + 1)] == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_the_golden_log_has_every_kind_of_record_a_seal_amid_frames_segments_and_a_torn_tail(version: str) -> None:
    log = expected_of(version)["log"]
    assert {record["kind"] for record in log["records"]} == NODE_KINDS
    assert len(log["segments"]) >= 3 and log["torn_tail"] is not None
    counts = [[frame["record_count"] for frame in segment["frames"]] for segment in log["segments"]]
    assert any(0 in frames[:-1] for frames in counts)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_start_makes_of_a_golden_log_exactly_the_state_it_meant(version: str, tmp_path: Path) -> None:
    directory = copied(version, tmp_path / "log")
    state = make.read_state(directory)
    assert state == expected_of(version)["state"]
    assert state["torn_tail"]
    again = make.read_state(directory)
    assert again == {**state, "torn_tail": False}, "the repaired log means the same"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reader_written_from_the_page_reads_a_golden_log(version: str) -> None:
    assert read_log(make.FOLDER / version / "log") == expected_of(version)["log"]


def test_the_page_s_crc_has_the_check_value_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"56789", crc32c(b"1234")) == 0xE3069283


def test_today_s_encoders_write_the_bytes_of_the_golden_log(tmp_path: Path) -> None:
    """Segment headers, frames by both writers (the server's is `Tail`), records."""
    version = f"v{wal.FORMAT_VERSION}"
    for segment in expected_of(version)["log"]["segments"]:
        golden = (make.FOLDER / version / "log" / segment["file"]).read_bytes()
        header = wal.decode_segment_header(golden)
        assert header is not None and header.segment_id == segment["segment_id"]
        assert wal.encode_segment_header(header) == golden[: wal.SEGMENT_HEADER_BYTES]
        fd = os.open(tmp_path / "written", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        tail = Tail()
        tail.enter(fd, header.segment_id, header.size_bytes, wal.SEGMENT_HEADER_BYTES)
        tail.chain, tail.sequence_due = header.chain, header.first_sequence
        for told in segment["frames"]:
            chain = tail.chain
            _, frame = wal.read_frame(golden, told["offset"], header.segment_id, told["first_sequence"], chain)
            assert frame is not None
            assert [decode(data).encode() for data in frame.records] == frame.records
            tail.durable_sequence = told["durable_sequence"]
            encoded, _ = wal.encode_frame(header.segment_id, frame.first_sequence, told["durable_sequence"], chain, frame.records)
            assert tail.write_group(frame.records) == 0
            assert encoded == golden[told["offset"] : told["end"]] == os.pread(fd, len(encoded), told["offset"])
        os.close(fd)


def test_the_script_that_makes_golden_logs_still_makes_this_one(tmp_path: Path) -> None:
    """Where segments end is the server's affair; what is in them is not."""
    make.write_log(tmp_path / "log")
    made = read_log(tmp_path / "log")
    assert made["records"] == expected_of(f"v{wal.FORMAT_VERSION}")["log"]["records"]
    assert made["torn_tail"] is not None


def test_a_server_starts_on_a_golden_log_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    copied(f"v{wal.FORMAT_VERSION}", tmp_path / "data" / "log")
    with TokMeshProcess(tmp_path) as server:
        assert any("torn tail" in line["message"] for line in server.log_lines())
        keys = server.command_line("key", "list").stdout
        assert keys.count("tmak-") == 2, "those of the log, and no first key beside them"
        made = server.command_line("key", "create", "--role=issuer").stdout.strip()
        assert server.create_session("carol", key=made)["session_id"]
        assert server.stop() == 0


def test_every_kind_of_record_is_in_the_records_of_the_script() -> None:
    kinds: set[type[AnyRecord]] = {type(record) for group in (*make.BEFORE_SEAL, *make.AFTER_SEAL) for record in group}
    assert {kind.__name__ for kind in kinds} == NODE_KINDS
    streamed = {type(record).__name__ for record in make.CLUSTER.values()} | {"SessionsRevoked", "StreamBound", "Streamed"}
    assert streamed == CLUSTER_KINDS | {"SessionsRevoked"}


def test_a_start_makes_of_the_golden_log_of_a_cluster_exactly_the_state_it_meant(tmp_path: Path) -> None:
    version = f"v{wal.FORMAT_VERSION}-cluster"
    directory = copied(version, tmp_path / "log")
    assert make.read_cluster_state(directory) == expected_of(version)
    make.write_cluster_log(tmp_path / "again")
    for path in (make.FOLDER / version / "log").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), "today's encoder writes other bytes"
