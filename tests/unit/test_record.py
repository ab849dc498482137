"""Records: what is encoded comes back; anything else is a RecordError; the bytes of format 1 never change."""

import hashlib
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokmesh.log import record as r
from tokmesh.log.stream_record import Envelope, decode_envelope

times = st.integers(min_value=0, max_value=2**53)
ids16 = st.binary(min_size=16, max_size=16)
hashes = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=128)
agents = st.text(st.characters(exclude_categories=["Cs"]), max_size=512)
networks = st.ip_addresses().map(str) | st.sampled_from(["10.0.0.0/8", "2001:db8::/32", "192.168.1.1/24"])

node_ids = st.from_regex(r"tmnd-[a-z0-9-]{1,58}", fullmatch=True)
KEYS = st.builds(
    r.KeyCreated,
    time_ms=times,
    key_id=ids16,
    role=st.sampled_from(["metrics", "validator", "issuer", "admin"]),
    description=texts,
    allowedlist=st.lists(networks, max_size=4),
    rate_limit=st.floats(min_value=0, max_value=1e6),
    expires_at_ms=times,
    argon2_hash=st.text("abc$=,0", max_size=100),
    salt=ids16,
    tag=hashes,
)


def rotated(record: r.SessionStated) -> st.SearchStrategy[r.AnyRecord]:
    """The same, or with a token that was rotated away."""

    def with_old(old_token_hash: bytes, until_ms: int) -> r.AnyRecord:
        values = dict(zip(("time_ms", *type(record).__slots__), record.values(), strict=True))
        return r.SessionStated(**{**values, "old_token_hash": old_token_hash, "old_valid_until_ms": until_ms})

    return st.just(record) | st.builds(with_old, hashes.filter(any), st.integers(min_value=1, max_value=2**53))


RECORDS: st.SearchStrategy[r.AnyRecord] = st.one_of(
    st.builds(
        r.SessionCreated,
        time_ms=times,
        session_id=ids16,
        token_hash=hashes,
        user_id=texts.filter(bool),
        device_id=texts,
        ip_address=st.just("") | st.ip_addresses().map(str),
        user_agent=agents,
        created_by=st.sampled_from(["", "local", "tmak-" + "0" * 26]),
        expires_at_ms=times,
        idle_seconds=st.integers(min_value=0, max_value=2**32 - 1),
        data=st.binary(max_size=4096),
        evicts=st.lists(ids16, max_size=5),
    ),
    st.builds(r.SessionRenewed, time_ms=times, session_id=ids16, expires_at_ms=times),
    st.builds(r.SessionUpdated, time_ms=times, session_id=ids16, data=st.binary(max_size=4096)),
    st.builds(r.SessionsRevoked, time_ms=times, session_ids=st.lists(ids16, max_size=20)),
    st.builds(r.TokenRotated, time_ms=times, session_id=ids16, token_hash=hashes, old_valid_until_ms=times),
    st.builds(
        r.SessionsTouched,
        time_ms=times,
        touches=st.lists(
            st.tuples(ids16, times, st.none() | st.just("") | st.ip_addresses().map(str), st.none() | agents),
            max_size=5,
        ),
    ),
    KEYS,
    st.builds(r.KeyStatusChanged, time_ms=times, key_id=ids16, active=st.booleans()),
)
STATED = st.builds(
    r.SessionStated,
    time_ms=times,
    session_id=ids16,
    token_hash=hashes,
    old_token_hash=st.just(b""),
    old_valid_until_ms=st.just(0),
    created_at_ms=times,
    expires_at_ms=times,
    last_active_ms=times,
    version=st.integers(min_value=1, max_value=2**64 - 1),
    idle_seconds=st.integers(min_value=0, max_value=2**32 - 1),
    user_id=texts.filter(bool),
    device_id=texts,
    ip_address=st.just("") | st.ip_addresses().map(str),
    user_agent=agents,
    created_by=st.sampled_from(["", "local", "tmak-" + "0" * 26]),
    data=st.binary(max_size=4096),
)


def held(stated: r.SessionStated) -> r.AnyRecord:
    return r.SessionHeld(stated.time_ms, stated.session_id, stated.expires_at_ms + 1, stated)


def shards(time_ms: int, held: int, loading: int) -> r.AnyRecord:
    return r.ShardsHeld(time_ms, held, loading & ~held)


bits = st.integers(min_value=0, max_value=2**64 - 1)
CLUSTER_RECORDS: st.SearchStrategy[r.AnyRecord] = st.one_of(
    STATED.flatmap(rotated),
    STATED.map(held),
    st.builds(r.SessionHeld, time_ms=times, session_id=ids16, held_until_ms=times.filter(bool), stated=st.none()),
    st.builds(r.KeyStated, time_ms=times, active=st.booleans(), created=KEYS),
    st.builds(
        r.Streamed,
        time_ms=times,
        position=st.integers(min_value=2**32, max_value=2**64 - 1),
        previous=st.integers(min_value=0, max_value=2**32 - 1),
        envelope=st.binary(min_size=1, max_size=100),
    ),
    st.builds(r.StreamBound, time_ms=times, cluster_id=ids16, created_ns=times, position=times),
    st.builds(r.NodeStated, time_ms=times, node_id=node_ids, incarnation=times),
    st.builds(r.PlaceStated, time_ms=times),
    st.builds(shards, time_ms=times, held=bits, loading=bits),
    st.builds(r.ShardLoaded, time_ms=times, position=bits, envelope=st.binary(max_size=100)),
    st.builds(r.ClusterStated, time_ms=times, cluster_id=ids16, members=st.lists(node_ids, max_size=5, unique=True)),
)
ALL_RECORDS: st.SearchStrategy[r.AnyRecord] = RECORDS | CLUSTER_RECORDS


def decoded_or_none(payload: bytes) -> r.AnyRecord | None:
    try:
        return r.decode(payload)
    except r.RecordError:
        return None


@settings(max_examples=400, deadline=None)
@given(ALL_RECORDS)
def test_what_is_encoded_comes_back(record: r.AnyRecord) -> None:
    back = r.decode(record.encode())
    assert back == record, (back.values(), record.values())
    assert back.reserved == isinstance(record, r.SessionsRevoked)


@settings(max_examples=200, deadline=None)
@given(ALL_RECORDS, st.data())
def test_cut_lengthened_or_changed_bytes_are_an_error_or_exactly_their_record(record: r.AnyRecord, data: Any) -> None:
    payload = record.encode()
    cut = payload[: data.draw(st.integers(min_value=0, max_value=len(payload) - 1))]
    at = data.draw(st.integers(min_value=0, max_value=len(payload) - 1))
    changed = payload[:at] + bytes([payload[at] ^ (1 << data.draw(st.integers(0, 7)))]) + payload[at + 1 :]
    for junk in (cut, payload + data.draw(st.binary(min_size=1, max_size=3)), changed):
        back = decoded_or_none(junk)
        assert back is None or back.encode() == junk


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
@example(b"")
@example(b"\x01\x01" + bytes(8))
def test_random_bytes_raise_record_error_only(junk: bytes) -> None:
    back = decoded_or_none(junk)
    assert back is None or back.encode() == junk


def test_every_kind_over_random_bodies() -> None:
    seed = 20_241_218
    generator = random.Random(seed)
    for kind in range(256):
        for size in (0, 1, 16, 24, 25, 48, 80, 96, 200):
            junk = bytes([kind, 1]) + generator.randbytes(7) + b"\x00" + generator.randbytes(size)
            back = decoded_or_none(junk)
            assert back is None or back.encode() == junk, f"seed {seed}, kind {kind}, size {size}"


def cluster_records() -> list[r.AnyRecord]:
    """One of each kind that only a cluster has."""
    session_id, token_hash = bytes(range(16)), bytes(range(32))
    key = r.KeyCreated(1, session_id, "issuer", "ä", ["::1"], 2.5, 3, "$argon2id$", session_id, token_hash)
    stated = r.SessionStated(
        1, session_id, token_hash, token_hash[::-1], 2, 3, 4, 5, 6, 7, "ü", "d", "::1", "ua", "", b'{"a":"b"}'
    )
    return [
        stated,
        r.SessionHeld(1, session_id, 9, stated),
        r.KeyStated(9, False, key),
        r.Streamed(1, 8, 7, Envelope("tmnd-a", 5, 6, "req-1", r.SessionRenewed(1, session_id, 2).encode()).encode()),
        r.StreamBound(1, session_id, 2, 3),
        r.NodeStated(1, "tmnd-a", 2),
        r.ClusterStated(1, session_id, ["tmnd-b", "tmnd-a"]),
        r.PlaceStated(1),
        r.ShardsHeld(1, 2**63 + 1, 2),
        r.ShardLoaded(1, 7, Envelope("tmnd-a", 5, 6, "", stated.encode()).encode()),
    ]


SHORTER = r.SessionStated(1, bytes(16), bytes(32), b"", 0, 3, 4, 5, 6, 7, "u", "", "", "", "", b"")


@pytest.mark.parametrize(
    "payload",
    [
        r.SessionRenewed(5, bytes(16), 9).encode().replace(b"\x02\x01", b"\x02\x02", 1),
        r.SessionRenewed(5, bytes(16), 9).encode().replace(b"\x02\x01", b"\x07\x01", 1),
        r.SessionRenewed(-5, bytes(16), 9).encode(),
        r.SessionRenewed(5, bytes(16), -9).encode(),
        r.SessionUpdated(5, bytes(16), bytes(4097)).encode(),
        r.SessionCreated(5, bytes(16), bytes(32), "", "", "", "", "", 9, 0, b"{}").encode(),
        r.SessionCreated(5, bytes(16), bytes(32), "u" * 513, "", "", "", "", 9, 0, b"{}").encode(),
        r.SessionCreated(5, bytes(16), bytes(32), "u", "", "", "", "", 9, 0, bytes(4097)).encode(),
        r.SessionsRevoked(5, [bytes(15)]).encode(),
        r.SessionsTouched(5, [(bytes(16), -1, None, None)]).encode(),
        r.KeyCreated(5, bytes(16), "admin", "", ["no network"], 0.0, 0, "h", bytes(16), bytes(32)).encode(),
        r.KeyCreated(5, bytes(16), "admin", "", [], float("nan"), 0, "h", bytes(16), bytes(32)).encode(),
        r.KeyStatusChanged(5, bytes(16), True).encode()[:-1] + b"\x02",
        r.SessionStated(1, bytes(16), bytes(32), b"", 5, 3, 4, 5, 6, 7, "u", "", "", "", "", b"").encode(),
        r.SessionStated(1, bytes(16), bytes(32), b"x" * 32, 0, 3, 4, 5, 6, 7, "u", "", "", "", "", b"").encode(),
        r.SessionStated(1, bytes(16), bytes(32), b"", 0, 3, 4, 5, 0, 7, "u", "", "", "", "", b"").encode(),
        r.SessionStated(1, bytes(16), bytes(32), b"", 0, -3, 4, 5, 1, 7, "u", "", "", "", "", b"").encode(),
        r.SessionHeld(1, bytes(16), 0, None).encode(),
        r.SessionHeld(1, bytes(16), 4, SHORTER).encode(),
        r.SessionHeld(2, bytes(16), 5, SHORTER).encode(),
        r.SessionHeld(1, b"x" * 16, 5, SHORTER).encode(),
        r.SessionHeld(1, bytes(16), 5, None).encode() + r.SessionRenewed(1, bytes(16), 2).encode(),
        r.Streamed(1, 7, 7, b"x").encode(),
        r.NodeStated(1, "", 2).encode(),
        r.PlaceStated(1).encode() + b"a",
        r.ShardsHeld(1, 3, 2).encode(),
        r.ShardsHeld(1, 3, 4).encode() + b"a",
        r.NodeStated(1, "tmnd-a", 2).encode() + b"a",
        r.ClusterStated(1, bytes(16), ["tmnd-a", "tmnd-b"]).encode().replace(b"tmnd-b", b"tmnd-a"),
        r.ClusterStated(1, bytes(16), ["tmnd-a"]).encode()[:-1],
    ],
)
def test_out_of_bounds_fields_are_refused(payload: bytes) -> None:
    with pytest.raises(r.RecordError):
        r.decode(payload)


def test_the_bytes_of_format_1_do_not_change() -> None:
    session_id, token_hash = bytes(range(16)), bytes(range(32))
    records: list[r.AnyRecord] = [
        r.SessionCreated(1, session_id, token_hash, "ü", "d", "::1", "ua", "tmak-x", 2, 3, b'{"a":"b"}', [session_id]),
        r.SessionRenewed(1, session_id, 2),
        r.SessionUpdated(1, session_id, b"{}"),
        r.SessionsRevoked(1, [session_id]),
        r.TokenRotated(1, session_id, token_hash, 2),
        r.SessionsTouched(1, [(session_id, 2, None, "ua"), (session_id, 3, "::1", None)]),
        r.KeyCreated(1, session_id, "issuer", "ä", ["10.0.0.0/8", "::1"], 2.5, 3, "$argon2id$", session_id, token_hash),
        r.KeyStatusChanged(1, session_id, True),
        *cluster_records(),
    ]
    digests = [hashlib.sha256(record.encode()).hexdigest()[:16] for record in records]
    assert digests == [
        "bf48563c321154bb",
        "e57ae1957e6ce179",
        "691a56c6fb3ad251",
        "38ef4263f6ff058b",
        "7a5466122235060f",
        "123152ffd0e7d791",
        "b9741decabf458d2",
        "31d2db455eb6a4d6",
        "c22afb951ac21be0",
        "e85e20ae5dbb581c",
        "d8251a29ebd32f66",
        "8707b4fd455ac80a",
        "1bf7096d1754d5af",
        "f8f158fdea21586d",
        "d43297618a21f358",
        "8e5a557781668b99",
        "27982b84dd1df729",
        "e8050a7b5533a002",
    ]


def test_repr_shows_no_hash_and_equality_is_by_value() -> None:
    record = r.TokenRotated(5, bytes(16), b"\xab" * 32, 7)
    assert repr(record) == "TokenRotated(time_ms=5)"
    assert record == r.TokenRotated(5, bytes(16), b"\xab" * 32, 7)
    assert record != r.TokenRotated(5, bytes(16), b"\xab" * 32, 8)
    assert record != r.SessionRenewed(5, bytes(16), 7)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        Envelope, origin=node_ids, incarnation=times, number=times,
        request_id=st.from_regex(r"[A-Za-z0-9._-]{0,64}", fullmatch=True), record=st.binary(min_size=1, max_size=50),
    ),
    st.binary(max_size=80),
)  # fmt: skip
def test_an_envelope_comes_back_and_anything_else_is_an_error_or_exactly_its_envelope(envelope: Envelope, junk: bytes) -> None:
    assert decode_envelope(envelope.encode()) == envelope
    for payload in (junk, envelope.encode()[: len(junk)], b"\x02" + envelope.encode()[1:]):
        try:
            back = decode_envelope(payload)
        except r.RecordError:
            continue
        assert back.encode() == payload
