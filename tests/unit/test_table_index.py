"""The index against a multimap: growth, shrinking, tombstones and a full index, at every moment of a rebuild."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tokmesh._core.index import Index

MASK = 2**64 - 1


def siphash13(key: bytes, message: bytes) -> int:
    """The reference, from the paper."""

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & MASK

    def scramble() -> None:
        v[0] = (v[0] + v[1]) & MASK
        v[2] = (v[2] + v[3]) & MASK
        v[1], v[3] = rotate(v[1], 13) ^ v[0], rotate(v[3], 16) ^ v[2]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[1]) & MASK
        v[0] = (v[0] + v[3]) & MASK
        v[1], v[3] = rotate(v[1], 17) ^ v[2], rotate(v[3], 21) ^ v[0]
        v[2] = rotate(v[2], 32)

    k = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
    v = [k[0] ^ 0x736F6D6570736575, k[1] ^ 0x646F72616E646F6D, k[0] ^ 0x6C7967656E657261, k[1] ^ 0x7465646279746573]
    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 255])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v[3] ^= word
        scramble()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        scramble()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=40))
def test_the_tag_is_the_top_of_siphash_1_3(seed: bytes, key: bytes) -> None:
    assert Index("test", seed, 10, 0).tag(key) == siphash13(seed, key) >> 32


def new_index(references_max: int = 1_000_000) -> Index:
    return Index("test", bytes(16), references_max, 0)


def test_every_reference_is_found_at_every_moment_of_growth_and_shrinking() -> None:
    source = random.Random(7)
    index = new_index()
    present: dict[int, int] = {}
    largest = rebuilds = 0
    target = 100_000
    for reference in range(1, 1_000_000):
        if len(present) < target:
            tag = source.getrandbits(32)
            assert index.insert(tag, reference)
            present[reference] = tag
        else:
            target = 500
        if target == 500:
            gone, tag = present.popitem()
            index.erase(tag, gone)
            if len(present) <= target:
                break
        rebuilds += index.capacity()[1] != 0
        if reference % 97 == 0:
            sample = source.choice(list(present)) if len(present) < 2000 else next(reversed(present))
            assert sample in index.candidates(present[sample])
        if reference % 20_011 == 0:
            assert all(known in index.candidates(tag) for known, tag in present.items())
        largest = max(largest, index.capacity()[0])
    assert rebuilds > 1000
    assert index.live == len(present)
    for reference in range(1_000_000, 1_250_000):  # cells that are GONE fill up; rebuilding gives the room back
        tag = source.getrandbits(32)
        index.insert(tag, reference)
        index.erase(tag, reference)
    assert index.capacity()[0] < largest // 4
    assert all(known in index.candidates(tag) for known, tag in present.items())
    assert index.zone.committed() < 64 * 1024 + 2 * 8 * index.capacity()[0] + 2 * 256 * 1024


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 60)), max_size=1500))
def test_colliding_tags(operations: list[tuple[int, int, int]]) -> None:
    """Few tags, at both ends of the array, so that runs are long and wrap around."""
    tags = [0, 1, 2**32 - 1, 2**32 - 2, 2**31, 5]
    index = new_index(2000)
    pairs: set[tuple[int, int]] = set()
    for operation, which, reference in operations:
        pair = (tags[which], reference)
        if operation == 0 and pair not in pairs:
            assert index.insert(*pair)
            pairs.add(pair)
        elif operation == 1:
            index.erase(*pair)
            pairs.discard(pair)
        elif operation == 2 and pair in pairs and (pair[0], reference + 100) not in pairs:
            index.replace(*pair, reference + 100)
            pairs = pairs - {pair} | {(pair[0], reference + 100)}
        assert sorted(index.candidates(pair[0])) == sorted(known for tag, known in pairs if tag == pair[0])
    assert index.live == len(pairs)


def test_a_full_index_refuses_and_recovers() -> None:
    index = new_index(100)
    count = 0
    while index.insert(count * 2654435761 % 2**32, count + 1):
        count += 1
    assert count >= 100
    for gone in range(count):
        index.erase(gone * 2654435761 % 2**32, gone + 1)
    assert index.live == 0
    assert all(index.insert(number, number + 1) for number in range(100))


def test_a_run_around_the_end_is_found_while_the_beginning_is_moving() -> None:
    """A long run that begins in the last cell goes on at the first ones; a rebuild moves those before it moves the last."""
    for run in range(1, 60):
        index = Index("end", bytes(16), 4096, 0)
        last = 0xFFFFFFFF
        expected = set()
        capacity, _ = index.capacity()
        for reference in range(1, run + 1):
            assert index.insert(last, reference)
            expected.add(reference)
        moving = 0
        for reference in range(run + 1, 4 * capacity):
            assert index.insert(0x80000000, reference)
            moving += index.capacity()[1] != 0
            assert set(index.candidates(last)) == expected, (run, reference, index.capacity())
        assert moving, "a rebuild was under way"
