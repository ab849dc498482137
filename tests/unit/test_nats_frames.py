"""What a NATS server sends is cut into the frames that it holds, wherever the connection cut it; rubbish is told, not believed."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.protocol.parser import Parser

from tokmesh._core.clock import Clock
from tokmesh._core.nats_frames import BadFrame, Frames
from tokmesh._core.streamed import Deliveries

SID = 5
HEADERS = b"NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n"


def delivery(number: int, payload: bytes, headers: bytes = HEADERS) -> bytes:
    reply = b"$JS.ACK.S.c.1.%d.%d.1700000000000000000.0" % (number * 2, number)
    if not headers:
        return b"MSG inbox %d %s %d\r\n%s\r\n" % (SID, reply, len(payload), payload)
    return b"HMSG inbox %d %s %d %d\r\n%s%s\r\n" % (SID, reply, len(headers), len(headers) + len(payload), headers, payload)


STREAM = b"".join(
    (
        b"PING\r\n", delivery(1, b"first"), b"MSG beats 2 11\r\nhello\r\nMSG \r\n", delivery(2, b"", b""),
        b"INFO {\"a\":1}\r\n", b"HMSG inbox 5 $JS.FC.x 12 12\r\nNATS/1.0 100\r\n", delivery(3, b"MSG x 1 2\r\n\r\n"),
        b"-ERR 'slow'\r\n+OK\r\n", b"MSG a.b 2 answer.here 0\r\n\r\n", delivery(4, bytes(300)),
    )
)  # fmt: skip
OTHERS: list[object] = [
    b"PING\r\n", (2, b"beats", b"", b"hello\r\nMSG ", None), b"INFO {\"a\":1}\r\n",
    (5, b"inbox", b"$JS.FC.x", b"", b"NATS/1.0 100"), b"-ERR 'slow'\r\n", b"+OK\r\n", (2, b"a.b", b"answer.here", b"", None),
]  # fmt: skip


def read_all(pieces: list[bytes]) -> tuple[list[object], list[bytes]]:
    """Frames, and the envelopes that went to the deliveries."""
    frames, deliveries = Frames(), Deliveries(0, Clock())
    frames.deliver_to(SID, deliveries)
    found: list[object] = []
    for piece in pieces:
        frames.feed(piece)
        while (frame := frames.read()) is not None:
            found.append(frame)
    batches = deliveries.take()
    assert deliveries.fault is None
    return found, [batch.record(index)[26:] for batch in batches for index in range(len(batch))]


DELIVERED = [b"first", b"", b"MSG x 1 2\r\n\r\n", bytes(300)]


def test_frames_are_the_same_wherever_they_are_cut_in_two() -> None:
    for at in range(len(STREAM) + 1):
        assert read_all([STREAM[:at], STREAM[at:]]) == (OTHERS, DELIVERED), at


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_frames_are_the_same_in_small_pieces(size: int) -> None:
    assert read_all([STREAM[at : at + size] for at in range(0, len(STREAM), size)]) == (OTHERS, DELIVERED)


def test_frames_are_the_same_in_three_pieces_cut_anywhere() -> None:
    rng = random.Random(seed := random.randrange(2**32))
    for _ in range(500):
        first, second = sorted(rng.randrange(len(STREAM) + 1) for _ in range(2))
        assert read_all([STREAM[:first], STREAM[first:second], b"", STREAM[second:]]) == (OTHERS, DELIVERED), seed


def test_a_large_message_is_not_joined_for_every_piece_of_it() -> None:
    frames = Frames()
    payload = random.randbytes(8 << 20)
    frames.feed(b"MSG a 1 %d\r\n" % len(payload))
    for at in range(0, len(payload), 4096):
        assert frames.read() is None
        frames.feed(payload[at : at + 4096])
    assert frames.read() is None
    frames.feed(b"\r\nPONG\r\n")
    assert frames.read() == (1, b"a", b"", payload, None)
    assert frames.read() == b"PONG\r\n"


class Recorder:
    """What nats-py's parser tells its client."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes, bytes, bytes, bytes | None]] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        self.messages.append((sid, bytes(subject), bytes(reply), payload, headers))


words = st.text("abc.>*$", min_size=1, max_size=8).map(str.encode)


@st.composite
def messages(draw: Any) -> bytes:
    payload: bytes = draw(st.binary(max_size=40))
    blank: bytes = draw(st.sampled_from([b" ", b"  ", b"\t"]))
    parts = [draw(words), b"%d" % draw(st.integers(0, 10**6)), *draw(st.lists(words, max_size=1))]
    if draw(st.booleans()):
        headers = b"NATS/1.0\r\n" + draw(st.binary(max_size=10)) + b"\r\n\r\n"
        sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
        return b"".join((b"HMSG ", blank.join((*parts, sizes)), b"\r\n", headers, payload, b"\r\n"))
    return b"".join((b"MSG ", blank.join((*parts, b"%d" % len(payload))), b"\r\n", payload, b"\r\n"))


@settings(deadline=None)
@given(st.lists(messages(), max_size=6), st.integers(1, 50))
def test_messages_are_those_that_nats_py_reads(sent: list[bytes], size: int) -> None:
    recorder, whole = Recorder(), b"".join(sent)
    asyncio.run(Parser(recorder).parse(whole))
    assert read_all([whole[at : at + size] for at in range(0, len(whole), size)])[0] == recorder.messages


@pytest.mark.parametrize(
    "bad",
    [
        b"MSG a 1 99999999999999999999\r\n",
        b"MSG a 1 %d\r\n" % ((64 << 20) + 1),
        b"MSG a 1 -1\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a x 1\r\n",
        b"MSG a 1\r\n",
        b"MSG \r\n",
        b"MSG a 1 r 5 6\r\n",
        b"MSG a 1 r s t u v 5\r\n",
        b"MSGX a 1 5\r\n",
        b"MSG a 1 5\n",
        b"MSG a 1 2\r\nabcd",
        b"MSG a 18446744073709551616 0\r\n\r\n",
        b"HMSG a 1 5\r\n",
        b"HMSG a 1 6 5\r\n",
        b"HMSG a 1 r x 5\r\n",
        b"HMSG a 1 r 1 5 5\r\n",
        b"x" * ((1 << 20) + 1),
    ],
)
def test_what_is_no_frame_is_told_and_goes_on_being_told(bad: bytes) -> None:
    frames = Frames()
    frames.feed(b"PING\r\n" + bad)
    assert frames.read() == b"PING\r\n"
    for _ in range(2):
        with pytest.raises(BadFrame):
            frames.read()
    frames.clear()  # another connection
    frames.feed(b"MSG a 1 2\r\nok\r\n")
    assert frames.read() == (1, b"a", b"", b"ok", None)


def test_whatever_is_fed_is_frames_or_bad() -> None:
    rng = random.Random(seed := random.randrange(2**32))
    for _ in range(1500):
        frames, data = Frames(), bytearray(STREAM)
        frames.deliver_to(SID, Deliveries(0, Clock()))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b"0129 \r\n\x00MSGH.$")
        frames.feed(bytes(data))
        try:
            for _ in range(len(data)):
                if frames.read() is None:
                    break
            else:
                raise AssertionError(seed)
        except BadFrame:
            pass


def test_a_subscription_that_is_forgotten_is_like_any_other() -> None:
    frames, deliveries = Frames(), Deliveries(0, Clock())
    frames.deliver_to(SID, deliveries)
    frames.forget(SID)
    frames.feed(delivery(1, b"a"))
    assert frames.read() == (SID, b"inbox", b"$JS.ACK.S.c.1.2.1.1700000000000000000.0", b"a", HEADERS)
    assert deliveries.take() == []
