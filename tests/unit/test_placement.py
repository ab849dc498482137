"""Who is primary for what: the same everywhere, even, and with few moves when a node comes or goes."""

import pytest

from tokmesh.cluster.placement import place
from tokmesh.cluster.subjects import SHARDS, shard_of

NODES = [f"tmnd-{number}" for number in range(70)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 20, 64, 65])
def test_no_two_nodes_differ_by_more_than_one_shard(count: int) -> None:
    placed = place(NODES[:count])
    shares = [placed.count(node_id) for node_id in NODES[:count]]
    assert len(placed) == SHARDS and sum(shares) == SHARDS
    assert max(shares) - min(shares) <= 1


def test_the_order_in_which_nodes_are_known_does_not_matter() -> None:
    assert place(NODES[:5]) == place(reversed(NODES[:5])) == place([*NODES[:5], NODES[0]])


def test_without_an_active_node_nobody_is_primary() -> None:
    assert place([]) == ()


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_node_that_goes_moves_little_but_its_own_shards(count: int) -> None:
    before, after = place(NODES[:count]), place(NODES[: count - 1])
    own = before.count(NODES[count - 1])
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert own <= moved <= own + SHARDS // 4


def test_a_session_s_shard_is_that_which_the_table_counts_it_in() -> None:
    assert [shard_of(bytes(15) + bytes((last,))) for last in (0, 63, 64, 255)] == [0, 63, 0, 63]
