"""Arena blocks never overlap, are reused, and an arena that is full says so; interned strings are counted."""

import random

import pytest

from tokmesh._core.arena import Arena
from tokmesh._core.interned import Interned


def test_blocks_never_overlap() -> None:
    source = random.Random(3)
    arena = Arena(1 << 20, 0)
    owner: dict[int, int] = {}
    blocks: dict[int, int] = {}
    refused = 0
    for _ in range(30_000):
        if blocks and (source.random() < 0.45 or not source.randrange(200)):
            block = source.choice(list(blocks)) if len(blocks) < 300 else next(iter(blocks))
            for granule in range(block, block + blocks[block]):
                del owner[granule]
            arena.give(block, blocks.pop(block))
            continue
        granules = source.choice([1, 2, 7, source.randrange(1, 1025)])
        block = arena.take(granules)
        if block == 0:
            refused += 1
            continue
        assert block >= 256 and block + granules <= 256 + (1 << 16)
        for granule in range(block, block + granules):
            assert granule not in owner
            owner[granule] = block
        blocks[block] = granules
    assert refused > 0
    assert arena.granules_free <= (1 << 16) - len(owner)


def test_a_freed_block_is_taken_again_and_a_larger_one_is_split_when_memory_ends() -> None:
    arena = Arena(16 * 1000, 0)
    large = arena.take(1000)
    assert arena.take(1) == 0
    arena.give(large, 1000)
    assert arena.take(400) == large
    assert arena.take(600) == large + 400
    assert arena.take(1) == 0


@pytest.mark.parametrize("granules", [0, 1025])
def test_an_impossible_block_is_refused(granules: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Arena(1 << 20, 0).take(granules)


def test_a_string_lives_as_long_as_its_holders() -> None:
    arena = Arena(1 << 20, 0)
    interned = Interned(arena, bytes(16), 1000, 0)
    first = interned.hold(b"curl/8")
    assert interned.hold(b"curl/8") == first
    assert interned.hold(b"curl/9") != first
    assert interned.index.live == 2
    interned.drop(first)
    assert interned.hold(b"curl/8") == first
    interned.drop(first)
    interned.drop(first)
    assert interned.index.live == 1
    assert interned.hold(b"") == 0


def test_interning_without_room_changes_nothing() -> None:
    arena = Arena(4096, 0)
    interned = Interned(arena, bytes(16), 1000, 0)
    assert interned.hold(b"x" * 8000) == 0
    assert interned.index.live == 0
    with pytest.raises(ValueError, match="too long"):
        interned.hold(b"x" * 16001)
