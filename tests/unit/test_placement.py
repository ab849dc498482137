"""Who holds what: the same everywhere, even, and with few moves when a node comes or goes."""

from collections import Counter

import pytest

from tokmesh.cluster.placement import place
from tokmesh.ids import SHARDS, shard_of

NODES = [f"tmnd-{number}" for number in range(70)]


def primaries(node_ids: list[str]) -> list[str]:
    return [holders[0] for holders in place(node_ids, 1)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 20, 64, 65])
def test_no_two_nodes_are_primary_for_numbers_of_shards_that_differ_by_more_than_one(count: int) -> None:
    placed = primaries(NODES[:count])
    shares = [placed.count(node_id) for node_id in NODES[:count]]
    assert len(placed) == SHARDS and sum(shares) == SHARDS
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(("count", "copies"), [(1, 1), (2, 2), (3, 2), (5, 2), (5, 3), (7, 3), (20, 2), (65, 3)])
def test_copies_are_on_different_nodes_and_even(count: int, copies: int) -> None:
    placed = place(NODES[:count], copies)
    assert all(len(set(holders)) == len(holders) == copies for holders in placed)
    shares = Counter(node_id for holders in placed for node_id in holders)
    mean = copies * SHARDS / count
    assert max(shares.values()) <= mean + copies + 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_more_copies_than_nodes_are_one_on_each(count: int) -> None:
    assert all(set(holders) == set(NODES[:count]) for holders in place(NODES[:count], 5))


def test_the_first_copies_do_not_depend_on_how_many_there_are() -> None:
    assert [holders[0] for holders in place(NODES[:5], 3)] == primaries(NODES[:5])
    assert [holders[:2] for holders in place(NODES[:5], 3)] == list(place(NODES[:5], 2))


def test_the_order_in_which_nodes_are_known_does_not_matter() -> None:
    assert place(NODES[:5], 2) == place(reversed(NODES[:5]), 2) == place([*NODES[:5], NODES[0]], 2)


def test_without_a_node_nobody_holds_anything() -> None:
    assert place([], 2) == ()


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_node_that_goes_moves_little_but_its_own_shards(count: int) -> None:
    before, after = primaries(NODES[:count]), primaries(NODES[: count - 1])
    own = before.count(NODES[count - 1])
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert own <= moved <= own + SHARDS // 4


@pytest.mark.parametrize(("count", "copies"), [(4, 2), (5, 2), (5, 3), (7, 3)])
def test_a_node_that_comes_leaves_most_copies_where_they_are(count: int, copies: int) -> None:
    before, after = place(NODES[: count - 1], copies), place(NODES[:count], copies)
    gained = Counter(node for one, other in zip(before, after, strict=True) for node in set(other) - set(one))
    new = gained.pop(NODES[count - 1])
    assert sum(gained.values()) <= SHARDS * copies // 3 and new <= SHARDS * copies / count + copies + 1


def test_a_session_s_shard_is_that_which_the_table_counts_it_in() -> None:
    assert [shard_of(bytes(15) + bytes((last,))) for last in (0, 63, 64, 255)] == [0, 63, 0, 63]
