"""The bytes of a beat: there and back, and nothing else is taken for one."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tokmesh.cluster.beat import VERSION_BYTES_MAX, Beat, BeatError, Echo, decode_beat, encode_beat
from tokmesh.ids import MEMBERS_MAX

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
NUMBER = st.integers(1, 2**64 - 1)
NODE_ID = st.from_regex(r"\Atmnd-[a-z0-9-]{1,58}\Z")
VERSION = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=VERSION_BYTES_MAX)
ECHOES = st.lists(st.builds(Echo, NODE_ID, U64, NUMBER, U64), max_size=5, unique_by=lambda echo: echo.node_id)
PLAIN = Beat("tmnd-a", 1, 2, 3, True, False, (Echo("tmnd-b", 4, 5, 6),), 7, 8, "1.0")


@st.composite
def beats(draw: st.DrawFn) -> Beat:
    """Any beat within its bounds."""
    node_id, notice = draw(NODE_ID), draw(st.booleans())
    echoes = () if notice else tuple(echo for echo in draw(ECHOES) if echo.node_id != node_id)
    integers = draw(U64), draw(NUMBER), draw(U64)
    return Beat(
        node_id, *integers, draw(st.booleans()), notice, echoes, draw(U64), draw(U32), draw(VERSION), draw(U64), draw(U64),
        draw(st.booleans()), draw(U32),
    )  # fmt: skip


@given(beats())
def test_every_beat_comes_back_as_it_was(beat: Beat) -> None:
    assert decode_beat(encode_beat(beat)) == beat


@given(beats(), st.data())
def test_a_beat_cut_anywhere_or_with_more_behind_it_is_none(beat: Beat, data: st.DataObject) -> None:
    raw = encode_beat(beat)
    for wrong in (raw[: data.draw(st.integers(0, len(raw) - 1))], raw + b"\0"):
        with pytest.raises(BeatError):
            decode_beat(wrong)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda tail: encode_beat(PLAIN)[:66] + tail)))
def test_any_bytes_are_a_beat_that_encodes_to_them_or_an_error(raw: bytes) -> None:
    try:
        beat = decode_beat(raw)
    except BeatError:
        return
    assert encode_beat(beat) == raw


@given(st.integers(0, len(encode_beat(PLAIN)) - 1), st.integers(0, 255))
def test_a_changed_byte_is_another_beat_or_an_error(position: int, value: int) -> None:
    raw = bytearray(encode_beat(PLAIN))
    raw[position] = value
    try:
        beat = decode_beat(bytes(raw))
    except BeatError:
        return
    assert encode_beat(beat) == raw


def many_echoes(count: int) -> tuple[Echo, ...]:
    return tuple(Echo(f"tmnd-x{index}", 1, 1, 0) for index in range(count))


@pytest.mark.parametrize(
    "beat",
    [
        PLAIN._replace(version="v" * VERSION_BYTES_MAX),
        PLAIN._replace(node_id="tmnd-" + "a" * 58),
        PLAIN._replace(echoes=many_echoes(MEMBERS_MAX)),
        PLAIN._replace(leaving=True),
        PLAIN._replace(pending=2**32 - 1, max_staleness_ms=2**32 - 1, sessions=2**64 - 1, incarnation=0, applied=0),
    ],
)
def test_each_bound_is_within(beat: Beat) -> None:
    assert decode_beat(encode_beat(beat)) == beat


@pytest.mark.parametrize(
    "beat",
    [
        PLAIN._replace(version="v" * (VERSION_BYTES_MAX + 1)),
        PLAIN._replace(version="line\n"),
        PLAIN._replace(version="é"),
        PLAIN._replace(node_id="tmnd-" + "a" * 59),
        PLAIN._replace(node_id="tmnd-"),
        PLAIN._replace(node_id="tmnd-A"),
        PLAIN._replace(echoes=many_echoes(MEMBERS_MAX + 1)),
        PLAIN._replace(echoes=(*PLAIN.echoes, *PLAIN.echoes)),
        PLAIN._replace(echoes=(Echo("tmnd-a", 1, 1, 0),)),
        PLAIN._replace(echoes=(Echo("tmnd-b", 1, 0, 0),)),
        PLAIN._replace(echoes=(Echo("tmnd-b", 1, 1, -1),)),
        PLAIN._replace(notice=True),
        PLAIN._replace(number=0),
        PLAIN._replace(pending=2**32),
        PLAIN._replace(max_staleness_ms=2**32),
        PLAIN._replace(applied=2**64),
        PLAIN._replace(sessions=-1),
    ],
)
def test_nothing_outside_the_bounds_is_sent(beat: Beat) -> None:
    with pytest.raises(BeatError):
        encode_beat(beat)


@pytest.mark.parametrize(("position", "value"), [(0, 0), (0, 2), (0, 4), (1, 8), (1, 0xFF)])
def test_another_format_or_unknown_flags_are_refused(position: int, value: int) -> None:
    raw = bytearray(encode_beat(PLAIN))
    raw[position] = value
    with pytest.raises(BeatError):
        decode_beat(bytes(raw))
