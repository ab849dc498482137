"""Records that no node made: passed over by all nodes, at a restart too, and nothing else is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.nats_hands import put
from tokmesh.log.record import SessionsRevoked, SessionStated, Streamed
from tokmesh.log.stream_record import Envelope

SESSION = bytes(range(16))
WELL = SessionsRevoked(1_700_000_000_000, (SESSION,)).encode()


def envelope(record: bytes) -> bytes:
    return Envelope("tmnd-9", 1, 1, "", record).encode()


def stated(**changed: object) -> bytes:
    fields: dict[str, object] = {
        "time_ms": 1_700_000_000_000, "session_id": SESSION, "token_hash": bytes(32), "old_token_hash": b"",
        "old_valid_until_ms": 0, "created_at_ms": 1_700_000_000_000, "expires_at_ms": 4_000_000_000_000,
        "last_active_ms": 1_700_000_000_000, "version": 1, "idle_seconds": 0, "user_id": "u", "device_id": "", "ip_address": "",
        "user_agent": "", "created_by": "", "data": b"{}",
    }  # fmt: skip
    return envelope(SessionStated(**{**fields, **changed}).encode())  # type: ignore[arg-type]


RECORDS = {
    "nothing": b"",
    "one byte": b"\x00",
    "text": b"hello",
    "an envelope of a later format": b"\x02" + envelope(WELL)[1:],
    "an envelope cut short": envelope(WELL)[:20],
    "an envelope without a record": envelope(WELL)[: -len(WELL)],
    "a record cut short": envelope(WELL[:-3]),
    "a record with bytes behind it": envelope(WELL + b"\x00"),
    "a record of a later kind": envelope(b"\xee" + WELL[1:]),
    "a record of a later format": envelope(WELL[:1] + b"\x7f" + WELL[2:]),
    "a record of a node's own log": envelope(Streamed(1, 2, 1, envelope(WELL)).encode()),
    "a time before all times": envelope(SessionsRevoked(-(2**63), (SESSION,)).encode()),
    "a time after all times": envelope(SessionsRevoked(2**63 - 1, (SESSION,)).encode()),
    "a session without a user": stated(user_id=""),
    "a session with a user too long": stated(user_id="u" * 500),
    "a session of version 0": stated(version=0),
    "a session of the last version": stated(version=2**64 - 1),
    "a session whose data is not JSON": stated(data=b"{{"),
    "a session whose data is too large": stated(data=b'{"a":"' + b"x" * 9000 + b'"}'),
    "a session that ends before it begins": stated(expires_at_ms=5),
    "a session that never ends": stated(expires_at_ms=2**63 - 1),
    "a session with an address that is none": stated(ip_address="not an address"),
    "noise": bytes(range(256)) * 8,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("records"), nodes=2, servers=1) as started:
        yield started


@pytest.fixture(scope="module", autouse=True)
def kept(cluster: Cluster) -> str:
    """A token that must stay good through all of it."""
    token: str = cluster.create(0)["token"]
    return token


@pytest.mark.parametrize("subject", ["s.00.0123456789abcdef0123456789abcdef", "k.00112233445566778899aabbccddeeff", "n.tmnd-9"])
def test_a_record_by_hand_stops_no_node(cluster: Cluster, subject: str, kept: str) -> None:
    for name, record in RECORDS.items():
        put(cluster.nats.servers[0], f"tokmesh.tokmesh.{subject}", record)
        made = cluster.create(0, user_id=f"{subject} {name}")
        for node in range(2):
            cluster.wait_verdict(node, made["token"], True)
    for node in range(2):
        assert cluster.verdict(node, kept) is True


def test_nodes_start_again_over_records_by_hand(cluster: Cluster, kept: str) -> None:
    cluster.restart_nodes()
    for number in range(len(cluster.nodes)):
        assert cluster.verdict(number, kept) is True


def test_a_fresh_node_starts_over_records_by_hand(cluster: Cluster, kept: str, tmp_path: Path) -> None:
    cluster.add_node().start()
    cluster.wait_verdict(2, kept, True)
