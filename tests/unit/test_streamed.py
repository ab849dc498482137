"""Batches hold the bytes that the log would have written record by record; deliveries are taken by their numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmesh._core.clock import Clock
from tokmesh._core.streamed import Deliveries, StreamedBatch
from tokmesh.log.record import SessionsRevoked, Streamed
from tokmesh.log.stream_record import Envelope

NOW_MS = 1_700_000_000_000
RECORDS_MAX = 1024
ALONE_BYTES = 65_536




def clock() -> Clock:
    return Clock(anchor_ms=NOW_MS)


def time_told(envelope: bytes) -> int | None:
    """Of the record within, as record.py tells where it is; a time before 1970 counts as that."""
    if len(envelope) < 19 or len(envelope) < 29 + envelope[17] + envelope[18]:
        return None
    at = 21 + envelope[17] + envelope[18]
    return max(0, int.from_bytes(envelope[at : at + 8], "little", signed=True))


def expected(position: int, previous: int, envelope: bytes, time_ms: int) -> bytes:
    return Streamed(time_ms, position, previous, envelope).encode()


@given(st.lists(st.binary(max_size=60) | st.builds(
    lambda time_ms, origin: Envelope(origin, 1, 2, "q", SessionsRevoked(time_ms, ()).encode()).encode(),
    st.sampled_from([-1, -(2**63), 0, 5, 2**63 - 1]), st.sampled_from(["", "n", "n" * 200]),
), max_size=8))  # fmt: skip
def test_a_batch_has_the_bytes_of_each_record(envelopes: list[bytes]) -> None:
    batch = StreamedBatch(7, clock())
    for number, envelope in enumerate(envelopes):
        batch.append(10 + 3 * number, envelope)
    assert len(batch) == len(envelopes)
    previous = 7
    for number, envelope in enumerate(envelopes):
        position, time_ms = batch.place(number)
        told_ms = time_told(envelope)
        assert time_ms == told_ms if told_ms is not None else NOW_MS <= time_ms < NOW_MS + 60_000
        assert position == 10 + 3 * number
        assert batch.record(number) == expected(position, previous, envelope, time_ms)
        previous = position
    assert (batch.previous, batch.position) == (7, previous)
    assert batch.largest == max((26 + len(each) for each in envelopes), default=0)


def test_positions_rise_and_a_batch_is_bounded() -> None:
    batch = StreamedBatch(7, clock())
    for position in (7, 6, 0):
        with pytest.raises(ValueError, match="not the next"):
            batch.append(position, b"x")
    for position in range(8, 8 + RECORDS_MAX):
        batch.append(position, b"x")
    with pytest.raises(ValueError, match="not the next"):
        batch.append(10**6, b"x")
    with pytest.raises(IndexError):
        batch.record(RECORDS_MAX)
    with pytest.raises(IndexError):
        batch.place(RECORDS_MAX)


def test_own_records_are_found_by_the_beginning_of_their_envelope() -> None:
    batch = StreamedBatch(0, clock())
    for position, envelope in enumerate((b"other", b"mark-1", b"mar", b"mark", b"other"), 1):
        batch.append(position, envelope)
    assert [batch.find(b"mark", start, 5) for start in range(6)] == [1, 1, 3, 3, 5, 5]
    assert batch.find(b"mark", 0, 1) == 1
    assert batch.find(b"mark", 2, 3) == 3


def reply(sequence: object, number: object, *, stream: str = "S", domain: bool = False, token: bool = False) -> bytes:
    where = f"hub.ACCOUNT.{stream}.c" if domain else f"{stream}.c"
    return f"$JS.ACK.{where}.1.{sequence}.{number}.1700000000000000000.0{'.token' if token else ''}".encode()


@pytest.mark.parametrize(("domain", "token"), [(False, False), (True, False), (True, True)])
def test_deliveries_become_one_batch_until_it_is_taken(domain: bool, token: bool) -> None:
    deliveries = Deliveries(40, clock())
    for number, sequence in enumerate((41, 41, 40, 45), 1):  # what was taken is not taken again
        assert deliveries.deliver(reply(sequence, number, domain=domain, token=token), b"%d" % sequence)
    [batch] = deliveries.take()
    assert [batch.place(index)[0] for index in range(len(batch))] == [41, 45]
    assert (batch.previous, batch.position, deliveries.position, deliveries.due) == (40, 45, 45, 5)
    assert deliveries.take() == []
    deliveries.deliver(reply(50, 5, domain=domain, token=token), b"x")
    [after] = deliveries.take()
    assert (after.previous, after.position, len(batch)) == (45, 50, 2)


@pytest.mark.parametrize("number", [0, 1, 3, 9])
def test_after_a_number_that_is_not_due_nothing_is_taken(number: int) -> None:
    deliveries = Deliveries(0, clock())
    deliveries.deliver(reply(1, 1), b"a")
    deliveries.deliver(reply(2, number), b"b")
    assert deliveries.fault == f"delivery {number} came where 2 was due"
    deliveries.deliver(reply(2, 2), b"b")
    [batch] = deliveries.take()
    assert (len(batch), deliveries.due, deliveries.position) == (1, 2, 1)


@pytest.mark.parametrize(
    "subject",
    [
        b"", b"$JS.ACK", b"$JS.ACK.", b"$JS.FC.S.c.x", b"$JS.ACK.S.c.1.2.3.4", b"$JS.ACK.S.c.1.2.3.4.5.6", b"a" * 5000,
        reply("", 1), reply("x", 1), reply(-1, 1), reply(1, ""), reply(1, "1x"), reply("9" * 19, 1), reply(1, "9" * 30),
        b"." * 20, b"$JS.ACK." + b"." * 20, b"\xff" * 40,
    ],
)  # fmt: skip
def test_what_is_no_delivery_is_said_to_be_none(subject: bytes) -> None:
    deliveries = Deliveries(0, clock())
    assert not deliveries.deliver(subject, b"x")
    assert deliveries.take() == [] and deliveries.fault is None and deliveries.due == 1


def test_batches_are_bounded_and_a_large_record_is_alone() -> None:
    deliveries = Deliveries(0, clock())
    sizes = [10] * (RECORDS_MAX + 5) + [ALONE_BYTES + 1, 10, ALONE_BYTES, ALONE_BYTES + 1, ALONE_BYTES + 2, 10]
    for number, size in enumerate(sizes, 1):
        deliveries.deliver(reply(number, number), bytes(size))
    batches = deliveries.take()
    assert [len(batch) for batch in batches] == [RECORDS_MAX, 5, 1, 2, 1, 1, 1]
    assert [batch.previous for batch in batches[1:]] == [batch.position for batch in batches[:-1]]
    assert batches[-1].position == len(sizes)
