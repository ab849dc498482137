"""The frame and segment codec on its own: what is written is read back, and nothing else is taken for it."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sanitizers import bits_of
from tokmesh._core import wal, wal_search
from tokmesh._core.wal import FrameStatus

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
RECORDS = st.lists(st.binary(max_size=60), max_size=8)


def test_crc32c_gives_the_check_value_of_rfc_3720() -> None:
    assert wal.crc32c(b"123456789") == 0xE3069283
    assert wal.crc32c(b"\0" * 32) == 0x8A9136AA
    assert wal.crc32c(b"56789", wal.crc32c(b"1234")) == 0xE3069283
    assert wal.crc32c(b"", 7) == 7
    assert wal.crc32c(b"123456789") != zlib.crc32(b"123456789")


@given(U64, U64, U64, U32)
def test_a_segment_header_comes_back(segment_id: int, first_sequence: int, size_bytes: int, chain: int) -> None:
    header = wal.SegmentHeader(segment_id, first_sequence, size_bytes, chain)
    data = wal.encode_segment_header(header)
    assert len(data) == wal.SEGMENT_HEADER_BYTES
    assert wal.decode_segment_header(data) == header


def test_no_flipped_or_missing_bit_leaves_a_segment_header() -> None:
    data = wal.encode_segment_header(wal.SegmentHeader(2**63 + 5, 17, 4096, 99))
    for bit in bits_of(data):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        assert wal.decode_segment_header(broken) is None, bit
    for size in range(len(data)):
        assert wal.decode_segment_header(data[:size]) is None


@given(U64, st.integers(1, 2**63), U64, U32, RECORDS, st.integers(0, 20), st.binary(max_size=30))
def test_a_frame_comes_back(
    segment_id: int, sequence: int, durable: int, chain: int, records: list[bytes], offset: int, after: bytes
) -> None:
    data, chain_after = wal.encode_frame(segment_id, sequence, durable, chain, records)
    status, frame = wal.read_frame(b"\xaa" * offset + data + after, offset, segment_id, sequence, chain)
    assert status == FrameStatus.FRAME_VALID
    assert frame == wal.Frame(sequence, offset + len(data), chain_after, records)


@given(RECORDS, U32)
def test_a_frame_is_only_read_where_it_is_due(records: list[bytes], chain: int) -> None:
    data, _ = wal.encode_frame(7, 100, 99, chain, records)
    assert wal.read_frame(data, 0, 8, 100, chain)[0] == FrameStatus.FRAME_DAMAGED
    assert wal.read_frame(data, 0, 7, 101, chain)[0] == FrameStatus.FRAME_MISPLACED
    assert wal.read_frame(data, 0, 7, 100, chain ^ 1)[0] == FrameStatus.FRAME_MISPLACED


@settings(max_examples=20, deadline=None)
@given(RECORDS, U32)
def test_no_flipped_or_missing_bit_leaves_a_frame(records: list[bytes], chain: int) -> None:
    data, _ = wal.encode_frame(7, 100, 99, chain, records)
    for bit in bits_of(data):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        status, frame = wal.read_frame(broken, 0, 7, 100, chain)
        assert status == FrameStatus.FRAME_DAMAGED and frame is None, bit
    for size in range(1, len(data)):
        assert wal.read_frame(data[:size], 0, 7, 100, chain) == (FrameStatus.FRAME_DAMAGED, None)


@given(st.binary(max_size=300))
def test_junk_is_never_a_frame(junk: bytes) -> None:
    status, frame = wal.read_frame(junk, 0, 7, 100, 0)
    assert frame is None
    assert status == (FrameStatus.FRAME_END if not any(junk) else FrameStatus.FRAME_DAMAGED)
    assert wal_search.find_later_header(junk, 0, 7, 1) == -1


@given(st.integers(0, 70), st.integers(0, 40), st.booleans())
def test_the_first_byte_that_is_not_zero_is_found(zeros: int, offset: int, more: bool) -> None:
    data = bytes(zeros) + b"\x80\x01" * more
    expected = max(zeros, offset) if more and offset < len(data) else -1
    assert wal.first_nonzero(data, offset) == expected


def test_a_later_header_proves_damage_only_of_what_it_says_was_durable() -> None:
    later, _ = wal.encode_frame(7, 105, 104, 0, [b"x"])
    unsynced, _ = wal.encode_frame(7, 105, 99, 0, [b"x"])
    other, _ = wal.encode_frame(8, 105, 104, 0, [b"x"])
    assert wal_search.find_later_header(b"junk" + later, 0, 7, 100) == 4
    assert wal_search.find_later_header(b"junk" + later[: wal.FRAME_HEADER_BYTES], 0, 7, 100) == 4
    assert wal_search.find_later_header(b"junk" + unsynced + later, 0, 7, 100) == 4 + len(unsynced)
    assert wal_search.find_later_header(b"junk" + unsynced, 0, 7, 100) == -1
    assert wal_search.find_later_header(b"TMFR" + other, 0, 7, 100) == -1
    assert wal_search.find_later_header(b"", 0, 7, 100) == -1


def test_a_frame_whose_lengths_do_not_add_up_is_misplaced() -> None:
    data = bytearray(wal.encode_frame(7, 1, 0, 0, [b"abcd"])[0])
    data[56] = 3  # record length, with the CRCs made right again: no crash writes that
    data[40:44] = wal.crc32c(data[56:]).to_bytes(4, "little")
    data[44:48] = wal.crc32c(data[:44]).to_bytes(4, "little")
    data[52:56] = wal.crc32c(data[:52]).to_bytes(4, "little")
    assert wal.read_frame(data, 0, 7, 1, 0) == (FrameStatus.FRAME_MISPLACED, None)


def test_offsets_outside_the_buffer_are_our_bug() -> None:
    with pytest.raises(IndexError):
        wal.read_frame(b"abc", 4, 7, 1, 0)
    assert wal.read_frame(b"abc", 3, 7, 1, 0) == (FrameStatus.FRAME_END, None)


@given(RECORDS.filter(bool), st.binary(max_size=80), st.integers(0, 3))
def test_a_whole_frame_is_found_wherever_it_is_and_nothing_else(records: list[bytes], before: bytes, flags: int) -> None:
    frame, chain = wal.encode_frame(7, 100, 99, 5, records)
    data = before + frame + b"TMFR"
    whole = (len(before), 7, wal.Frame(100, len(before) + len(frame), chain, records))
    assert wal_search.find_frame(data, 0, 7) == wal_search.find_frame(data, 0) == whole
    assert wal_search.find_frame(data, len(before), 7) == whole
    assert wal_search.find_frame(data, len(before) + 1, 7) is None and wal_search.find_frame(data, 0, 8) is None
    assert wal_search.find_frame(data, len(data)) is None and wal_search.find_frame(data, len(data) + 1) is None
    for at in range(len(frame)):
        broken = bytearray(data)
        broken[len(before) + at] ^= 1 << flags
        assert wal_search.find_frame(broken, 0) is None, at
    encrypted = bytearray(frame)
    encrypted[5] = 1
    encrypted[52:56] = wal.crc32c(encrypted[:52]).to_bytes(4, "little")
    assert wal_search.find_frame(encrypted, 0) is None
    assert wal_search.find_frame(frame[:-1], 0) is None


def test_a_frame_of_a_later_version_is_told_from_what_a_cut_write_leaves() -> None:
    frame, _ = wal.encode_frame(7, 100, 99, 5, [b"record"])
    for at, status in ((4, FrameStatus.FRAME_MISPLACED), (6, FrameStatus.FRAME_MISPLACED), (8, FrameStatus.FRAME_DAMAGED)):
        changed = bytearray(frame)
        changed[at] ^= 2
        assert wal.read_frame(changed, 0, 7, 100, 5) == (FrameStatus.FRAME_DAMAGED, None), "the CRC is wrong"
        changed[52:56] = wal.crc32c(changed[:52]).to_bytes(4, "little")
        assert wal.read_frame(changed, 0, 7, 100, 5) == (status, None)
