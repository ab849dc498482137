"""A session's bytes in records are those that log/record.py tells: nothing is cut to fit, nothing outside its bounds is taken."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmesh._core.created import SessionCreated, split_texts

LENGTHS = struct.Struct("<HHBHBH")
BOUNDS = (512, 512, 64, 2048, 64, 4096)
LAYOUT = struct.Struct("<BBq16s32sqIHHBHBHH")
times = st.integers(min_value=-(2**63), max_value=2**63 - 1)
short_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=63)
long_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
ids = st.binary(min_size=16, max_size=16)
Fields = tuple[Any, ...]
GOOD: Fields = (1, bytes(16), bytes(32), "u", "d", "::1", "ua", "by", 2, 3, b"{}", ())


def with_one(index: int, value: Any) -> Fields:
    """Good fields but for one."""
    return (*GOOD[:index], value, *GOOD[index + 1 :])


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(
        times, ids, st.binary(min_size=32, max_size=32), long_texts, long_texts, short_texts, long_texts, short_texts, times,
        st.integers(min_value=0, max_value=2**32 - 1), st.binary(max_size=4096), st.lists(ids, max_size=4).map(tuple),
    )
)  # fmt: skip
def test_bytes_are_those_of_the_format(fields: Fields) -> None:
    time_ms, session_id, hashed, *texts, expires_at_ms, idle_seconds, data, evicts = fields
    parts = [text.encode() for text in texts]
    head = LAYOUT.pack(
        1, 1, time_ms, session_id, hashed, expires_at_ms, idle_seconds, *map(len, parts), len(data), len(evicts)
    )
    assert SessionCreated(*fields).encode() == b"".join([head, *parts, data, *evicts])


@pytest.mark.parametrize(
    "index, value",
    [
        (1, bytes(15)), (1, bytes(17)), (2, bytes(31)), (2, bytes(33)), (3, "u" * 65_536), (3, "ü" * 32_768), (4, "d" * 65_536),
        (5, "1" * 256), (6, "a" * 65_536), (7, "b" * 256), (10, bytes(65_536)), (11, (bytes(15),)), (11, (bytearray(16),)),
        (11, (bytes(16),) * 65_536),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(index: int, value: Any) -> None:
    assert SessionCreated(*GOOD).encode()
    with pytest.raises(ValueError):
        SessionCreated(*with_one(index, value)).encode()


@pytest.mark.parametrize("index, value", [(0, 2**63), (8, 2**63), (9, -1), (9, 2**32)])
def test_numbers_beyond_their_bytes_are_refused(index: int, value: int) -> None:
    with pytest.raises(OverflowError):
        SessionCreated(*with_one(index, value)).encode()


def test_the_longest_texts_fit() -> None:
    encoded = SessionCreated(
        1, bytes(16), bytes(32), "u" * 65_535, "d" * 65_535, "1" * 255, "a" * 65_535, "b" * 255, 2, 3, bytes(65_535), ()
    ).encode()
    assert len(encoded) == LAYOUT.size + 4 * 65_535 + 2 * 255


def test_a_lone_surrogate_has_no_bytes() -> None:
    with pytest.raises(UnicodeEncodeError):
        SessionCreated(*with_one(3, "\ud800")).encode()


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(short_texts.filter(bool), short_texts, st.text("a1:.", max_size=64)),
    st.tuples(long_texts, st.text("a1-", max_size=64), st.binary(max_size=300)),
    st.integers(0, 40), st.integers(0, 5), st.binary(max_size=20),
)  # fmt: skip
def test_texts_come_apart_as_they_were_put_together(
    first: tuple[str, str, str], second: tuple[str, str, bytes], lengths_at: int, gap: int, behind: bytes
) -> None:
    *texts, data = (*first, *second)
    parts = [*(text.encode() for text in texts), data]
    head = bytes(lengths_at) + LENGTHS.pack(*map(len, parts)) + bytes(gap)
    payload = head + b"".join(parts)
    assert split_texts(payload + behind, lengths_at, len(head)) == (*texts, data, len(payload))
    assert split_texts(payload[:-1], lengths_at, len(head)) is None


@pytest.mark.parametrize("index", range(6))
def test_each_text_has_its_bound(index: int) -> None:
    def payload(size: int) -> bytes:
        sizes = [1, 0, 0, 0, 0, 0]
        sizes[index] = size
        return LENGTHS.pack(*sizes) + b"a" * sum(sizes)

    assert split_texts(payload(BOUNDS[index]), 0, LENGTHS.size) is not None
    assert split_texts(payload(BOUNDS[index] + 1), 0, LENGTHS.size) is None


@pytest.mark.parametrize(
    "payload, lengths_at, texts_at",
    [
        (b"", 0, 0), (bytes(9), 0, 9), (bytes(10), 0, 10), (LENGTHS.pack(1, 0, 0, 0, 0, 0) + b"a", -1, 10),
        (LENGTHS.pack(1, 0, 0, 0, 0, 0) + b"a", 0, 9), (LENGTHS.pack(1, 0, 0, 0, 0, 0) + b"a", 0, 12),
    ],
)  # fmt: skip
def test_what_holds_no_texts_is_none(payload: bytes, lengths_at: int, texts_at: int) -> None:
    assert split_texts(payload, lengths_at, texts_at) is None


def test_texts_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        split_texts(LENGTHS.pack(1, 0, 0, 0, 0, 0) + b"\xff", 0, LENGTHS.size)
