"""What `tokmesh wal dump` shows of a record: exactly the fields named here; no secret's hash or verifier, nothing of a user's."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from tests.golden import make
from tests.support.canaries import PIECE_CHARS, Canary, leaks
from tests.support.server import TokMeshProcess
from tests.unit.test_record import CLUSTER_RECORDS, RECORDS, cluster_records
from tokmesh.log import record as r
from tokmesh.log.record_summary import KINDS, summary
from tokmesh.log.stream_record import decode_envelope
from tokmesh.storage.inspection import Inspection, decoded

SHOWN = {
    "SessionCreated": (
        "session_id expires_at_ms idle_seconds created_by user_id_bytes device_id_bytes ip_address_bytes user_agent_bytes "
        "data_bytes evicts"
    ),
    "SessionRenewed": "session_id expires_at_ms",
    "SessionUpdated": "session_id data_bytes",
    "SessionsRevoked": "session_ids",
    "TokenRotated": "session_id old_valid_until_ms",
    "SessionsTouched": "touches",
    "KeyCreated": "key_id role expires_at_ms rate_limit description_bytes allowedlist_count",
    "KeyStatusChanged": "key_id active",
    "SessionStated": (
        "session_id old_valid_until_ms created_at_ms expires_at_ms last_active_ms version idle_seconds created_by user_id_bytes "
        "device_id_bytes ip_address_bytes user_agent_bytes data_bytes"
    ),
    "SessionHeld": "session_id held_until_ms record",
    "KeyStated": "key_id role expires_at_ms rate_limit description_bytes allowedlist_count created_at_ms active",
    "Streamed": "position previous origin incarnation number record",
    "StreamBound": "cluster_id created_ns position",
    "NodeStated": "node_id incarnation",
    "ClusterStated": "cluster_id members",
    "PlaceStated": "",
    "ShardsHeld": "held loading",
    "ShardLoaded": "position origin incarnation number record",
}
EXAMPLES = [record for group in make.BEFORE_SEAL + make.AFTER_SEAL for record in group] + cluster_records()
TOUCH_SHOWN = "session_id last_active_ms ip_address_bytes user_agent_bytes"
HIDDEN = (
    "token_hash", "old_token_hash", "user_id", "device_id", "ip_address", "user_agent", "data", "description", "argon2_hash",
    "salt", "tag",
)  # fmt: skip
PUBLIC = ("session_id", "session_ids", "evicts", "key_id", "created_by", "role", "node_id", "cluster_id", "members")


def hidden_values(record: r.AnyRecord) -> Iterator[Any]:
    """Values of a record that must not be seen: all that is not a number or an id."""
    for name in type(record).__slots__:
        value = getattr(record, name)
        if name in HIDDEN:
            yield value
        elif name == "allowedlist":
            yield from value
        elif name == "created" or (name == "stated" and value is not None):
            yield from hidden_values(value)
        elif name == "envelope":
            yield from hidden_values(r.decode(decode_envelope(value).record))
        elif name == "touches":
            for _, _, ip_address, user_agent in value:
                yield from (text for text in (ip_address, user_agent) if text is not None)


def forms(value: Any) -> Iterator[str]:
    """How a value might be written down."""
    data = value if isinstance(value, bytes) else value.encode()
    if isinstance(value, str):
        yield value
        yield json.dumps(value)[1:-1]
    yield data.hex()
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")
    yield repr(data)[2:-1]
    yield str(list(data))[1:-1]


def test_each_kind_shows_exactly_what_is_named() -> None:
    assert set(SHOWN) == set(KINDS) == {type(record).__name__ for record in EXAMPLES}
    for record in EXAMPLES:
        told = summary(record)
        assert set(told) == {"kind", "time_ms", *SHOWN[told["kind"]].split()}
        for touch in told.get("touches", ()):
            assert set(touch) == set(TOUCH_SHOWN.split())


def test_every_field_of_every_kind_is_known_to_this_test() -> None:
    numbers = {"expires_at_ms", "idle_seconds", "old_valid_until_ms", "rate_limit", "active", "drained"}
    numbers |= {"created_at_ms", "last_active_ms", "version", "incarnation", "position", "previous", "created_ns", "held_until_ms"}
    numbers |= {"held", "loading"}
    for record in EXAMPLES:
        others = {"allowedlist", "touches", "created", "envelope", "stated"}
        assert set(type(record).__slots__) <= {*HIDDEN, *PUBLIC, *numbers, *others}


@settings(max_examples=400)
@given(RECORDS | CLUSTER_RECORDS.filter(lambda record: not isinstance(record, r.Streamed | r.ShardLoaded)))
def test_no_hash_verifier_or_text_of_any_record_is_in_its_summary(record: r.AnyRecord) -> None:
    told = json.dumps(summary(record))
    for value in hidden_values(record):
        for form in forms(value):
            # Shorter ones stand in any text; a hash or a salt is never that short.
            if len(form) >= PIECE_CHARS and len(set(form)) > 3:
                assert form not in told, form


def test_what_stands_in_the_place_of_a_creator_and_is_no_key_id_is_not_shown() -> None:
    for text, shown in (("", True), ("tmak-" + "0" * 26, True), ("tmas_" + "A" * 43, False), ("alice", False)):
        told = summary(make.created(1, "u", created_by=text))
        assert ("created_by" in told) == shown
        assert shown or told["created_by_bytes"] == len(text)
        assert shown or text not in json.dumps(told)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TokMeshProcess, list[Canary]]]:
    """A stopped server whose log holds canaries in every place that takes a text, and real secrets."""
    token = "tmtk_Ab3-xY9_kL0pQr7sTu2vWz5cDe8fGh1iJm4nOo6Ba3Q"
    personal = {
        name: f"canary-{name}-Zq81Yp72Xo63Wn54Vm45" for name in ("user", "device", "agent", "value", "note", "second-agent")
    }  # fmt: skip
    with TokMeshProcess(tmp_path_factory.mktemp("dump")) as server:
        made = server.create_session(
            personal["user"], device_id=personal["device"], user_agent=personal["agent"], ip_address="203.0.113.77", token=token,
            data={"k": personal["value"]},
        )  # fmt: skip
        second = server.create_session("bob")
        key = server.create_key("validator", description=personal["note"], allowedlist=["198.51.100.0/24"])
        touch = {"user_agent": personal["second-agent"], "ip_address": "203.0.113.77"}
        server.data("POST", f"/sessions/{second['session_id']}/touch", touch)
        server.data("POST", f"/sessions/{second['session_id']}/update", {"data": {"k": personal["value"]}})
        rotated = server.data("POST", "/tokens/rotate", {"token": second["token"], "grace_seconds": 10})
        server.data("POST", f"/sessions/{made['session_id']}/revoke", {})
        secrets = {
            "planted token": token, "token": second["token"], "rotated token": rotated["token"],
            "admin secret": server.admin_key.split(":")[1], "key secret": key.split(":")[1],
        }  # fmt: skip
        canaries = [Canary(name, text) for name, text in {**personal, **secrets}.items()]
        assert server.stop() == 0
        yield server, canaries


def test_nothing_secret_or_personal_of_a_real_server_s_log_is_printed(stopped: tuple[TokMeshProcess, list[Canary]]) -> None:
    server, canaries = stopped
    sinks = {
        " ".join(line): done.stdout + done.stderr
        for line in (("dump",), ("stats",), ("stats", "--json"), ("verify",), ("verify", "--json"))
        if (done := server.command_line("wal", *line)).returncode == 0
    }
    assert len(sinks) == 5
    kinds = {json.loads(line)["kind"] for line in sinks["dump"].splitlines()}
    assert kinds >= {"KeyCreated", "SessionCreated", "SessionUpdated", "SessionsRevoked", "TokenRotated", "SessionsTouched"}
    assert leaks(canaries, sinks) == []
    for text in ("203.0.113.77", "198.51.100", "argon2", "$"):
        assert text not in sinks["dump"]


def test_no_hash_of_a_real_server_s_log_is_printed_in_any_form(stopped: tuple[TokMeshProcess, list[Canary]]) -> None:
    server, _ = stopped
    printed = server.command_line("wal", "dump").stdout
    looked_for = 0
    with Inspection(server.directory) as inspection:
        for placed in inspection.frames():
            for _, record in decoded(placed, r.decode):
                for value in hidden_values(record):
                    looked_for += len(value) >= PIECE_CHARS
                    for form in forms(value):
                        pieces = (form[at : at + PIECE_CHARS] for at in range(0, len(form) - PIECE_CHARS + 1, 4))
                        assert not [piece for piece in pieces if piece in printed]
    assert looked_for >= 12


def test_the_log_of_that_server_does_hold_what_is_looked_for(stopped: tuple[TokMeshProcess, list[Canary]]) -> None:
    """Or the tests above would prove nothing."""
    server, canaries = stopped
    content = b"".join(path.read_bytes() for path in (server.directory / "log").glob("wal-*"))
    for canary in canaries[:6]:
        assert canary.secret.encode() in content, canary.name
    for canary in canaries[6:]:
        assert canary.secret.encode() not in content, canary.name
