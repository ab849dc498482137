"""The bytes of a SessionCreated are those that log/record.py tells, and nothing is cut to fit them."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmesh._core.created import encode_created

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
    assert encode_created(*fields) == b"".join([head, *parts, data, *evicts])


@pytest.mark.parametrize(
    "index, value",
    [
        (1, bytes(15)), (1, bytes(17)), (2, bytes(31)), (2, bytes(33)), (3, "u" * 65_536), (3, "ü" * 32_768), (4, "d" * 65_536),
        (5, "1" * 256), (6, "a" * 65_536), (7, "b" * 256), (10, bytes(65_536)), (11, (bytes(15),)), (11, (bytearray(16),)),
        (11, (bytes(16),) * 65_536),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(index: int, value: Any) -> None:
    assert encode_created(*GOOD)
    with pytest.raises(ValueError):
        encode_created(*with_one(index, value))


@pytest.mark.parametrize("index, value", [(0, 2**63), (8, 2**63), (9, -1), (9, 2**32)])
def test_numbers_beyond_their_bytes_are_refused(index: int, value: int) -> None:
    with pytest.raises(OverflowError):
        encode_created(*with_one(index, value))


def test_the_longest_texts_fit() -> None:
    encoded = encode_created(
        1, bytes(16), bytes(32), "u" * 65_535, "d" * 65_535, "1" * 255, "a" * 65_535, "b" * 255, 2, 3, bytes(65_535), ()
    )
    assert len(encoded) == LAYOUT.size + 4 * 65_535 + 2 * 255


def test_a_lone_surrogate_has_no_bytes() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_created(*with_one(3, "\ud800"))
