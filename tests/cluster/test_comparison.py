"""Tables are held to differ when they did at three places in a row, and a node for wrong when a majority is against it."""

import pytest

from tokmesh.cluster.comparison import PLACES_IN_A_ROW, PLACES_MAX, Comparison
from tokmesh.cluster.report import KEYS, Report, ReportError, decode_report, encode_report
from tokmesh.ids import ALL_SHARDS

A, B, C, D, E = MEMBERS = tuple(f"tmnd-{letter}" for letter in "abcde")
SAME = tuple(range(1, 66))
NOBODY: frozenset[str] = frozenset()


def wrong_in(*shards: int, by: int = 1_000) -> tuple[int, ...]:
    return tuple(each + by if shard in shards else each for shard, each in enumerate(SAME))


class Place:
    """Places one after the other, as the node A sees them."""

    def __init__(
        self,
        members: tuple[str, ...] = (A, B, C),
        judge: str = A,
        copies: int | None = None,
        held: dict[str, int] | None = None,
    ) -> None:
        self.members = members
        self.held = held or {}
        self.comparison = Comparison(judge, copies)
        self.position = 0

    def next(self, apart: tuple[str, ...] = (), /, **sums: tuple[int, ...]) -> tuple[dict[str, int], frozenset[str]]:
        """Who differs and who is outvoted when all members report `sums` (by letter), SAME where nothing is said; (): no report."""
        self.position += 10
        for node_id in self.members:
            found = sums.get(node_id[-1], SAME)
            if found:
                held = self.held.get(node_id, ALL_SHARDS)
                self.comparison.hear(Report(node_id, 1, self.position, node_id in apart, held, found))
        return self.comparison.judge(self.position + 1, self.members)[:2]


def test_equal_tables_are_compared_and_nothing_is_said() -> None:
    place = Place()
    assert [place.next() for _ in range(5)] == [({}, NOBODY)] * 5
    assert place.comparison.compared_total == 5


def test_a_difference_is_told_at_the_third_place_in_a_row_by_both_sides_and_no_longer_than_it_lasts() -> None:
    for judge, told in ((A, {B: 2}), (B, {A: 2, C: 2}), (C, {B: 2})):
        place = Place(judge=judge)
        assert [place.next(b=wrong_in(7, 63)) for _ in range(2)] == [({}, NOBODY)] * 2
        assert place.next(b=wrong_in(7, 63)) == (told, frozenset({B}))
        assert place.next() == ({}, NOBODY)


def test_keys_that_differ_are_told_as_such_and_outvote_like_sessions() -> None:
    comparison = Comparison(A, None)
    for position in range(1, PLACES_IN_A_ROW + 1):
        for node_id, sums in ((A, SAME), (B, wrong_in(KEYS)), (C, SAME)):
            comparison.hear(Report(node_id, 1, position, False, ALL_SHARDS, sums))
    verdict = comparison.judge(PLACES_IN_A_ROW + 1, (A, B, C))
    assert verdict == ({B: 1}, frozenset({B}), frozenset({B}))


def test_reports_of_places_that_never_come_keep_no_place_from_being_compared() -> None:
    place = Place()
    for odd in range(PLACES_MAX + 1):
        place.comparison.hear(Report(C, 1, 2**63 + odd, False, ALL_SHARDS, SAME))
    assert [place.next(b=wrong_in(7))[0] for _ in range(3)][-1] == {B: 1}
    assert place.comparison.compared_total == 3


def test_only_what_both_have_is_compared() -> None:
    place = Place(copies=2, held={A: 0b0011, B: 0b0110, C: 0b1100})
    everything = wrong_in(*range(64))
    assert [place.next(b=everything) for _ in range(3)][-1] == ({B: 1}, NOBODY), (
        "shard 1; of two copies nobody knows which is right"
    )
    place = Place(copies=2, held={A: 0b0011, B: 0b0110, C: 0b1100})
    assert [place.next(c=everything) for _ in range(4)] == [({}, NOBODY)] * 4, "A and C have nothing in common"


def test_of_three_copies_the_one_that_two_are_against_is_outvoted() -> None:
    everywhere = dict.fromkeys(MEMBERS, 0b0001)
    place = Place(MEMBERS, copies=3, held={**everywhere, B: 0b1001, C: 0b1000, D: 0b1000})
    told = [place.next(d=wrong_in(0, 3)) for _ in range(3)]
    assert told[-1] == ({}, frozenset({D})), "A has not that shard, and knows all the same"
    assert [place.next(e=wrong_in(3)) for _ in range(4)] == [({}, NOBODY)] * 4, "what E has not does not count"


def test_one_equal_place_in_between_begins_anew() -> None:
    place = Place()
    for _ in range(3):
        assert [place.next(b=wrong_in(7)), place.next(b=wrong_in(7)), place.next()] == [({}, NOBODY)] * 3


def test_differences_in_another_shard_each_time_are_not_one_difference() -> None:
    place = Place()
    assert [place.next(b=wrong_in(shard)) for shard in range(10)] == [({}, NOBODY)] * 10


def test_a_place_that_a_node_does_not_report_of_neither_counts_nor_ends_anything() -> None:
    place = Place()
    place.next(b=wrong_in(7))
    assert place.next(b=()) == ({}, NOBODY)
    place.next(b=wrong_in(7))
    assert place.next(a=(), b=wrong_in(7)) == ({}, NOBODY)
    assert place.next(b=wrong_in(7)) == ({B: 1}, frozenset({B}))
    assert place.comparison.compared_total == 4, "A reported of four, and somebody else did each time"


def test_of_two_nodes_nobody_is_outvoted() -> None:
    place = Place((A, B))
    assert [place.next(b=wrong_in(7)) for _ in range(4)][-1] == ({B: 1}, NOBODY)


def test_two_of_three_that_are_not_there_are_no_majority() -> None:
    place = Place()
    assert [place.next(b=wrong_in(7), c=()) for _ in range(4)][-1] == ({B: 1}, NOBODY)


def test_a_majority_is_of_the_members_and_has_one_and_the_same_sum() -> None:
    place = Place(MEMBERS)
    agree_on_nothing = {"a": wrong_in(7), "b": wrong_in(7), "c": wrong_in(7, by=5), "d": wrong_in(7, by=6)}
    assert [place.next(**agree_on_nothing) for _ in range(4)][-1] == ({C: 1, D: 1, E: 1}, NOBODY)
    place = Place(MEMBERS)
    assert [place.next(a=wrong_in(7), b=wrong_in(7, 9)) for _ in range(3)][-1] == ({B: 1, C: 1, D: 1, E: 1}, frozenset({A, B}))


def test_who_stands_apart_has_no_vote() -> None:
    place = Place()
    assert [place.next((C,), b=wrong_in(7)) for _ in range(4)][-1] == ({B: 1}, NOBODY), "of three one is apart: one against one"


def test_never_do_all_that_report_stand_apart() -> None:
    place = Place()
    each_in_another = {"a": wrong_in(1), "b": wrong_in(2), "c": wrong_in(3)}
    assert [place.next(**each_in_another) for _ in range(3)][-1] == ({B: 2, C: 2}, NOBODY)
    place = Place()
    assert [place.next(a=wrong_in(1), b=wrong_in(2)) for _ in range(3)][-1] == ({B: 2, C: 1}, frozenset({A, B}))


def test_only_members_are_heard() -> None:
    place = Place((A, B, C))
    place.members = (A, B)
    for _ in range(4):
        place.comparison.hear(Report(C, 1, place.position + 10, False, ALL_SHARDS, wrong_in(7)))
        assert place.next() == ({}, NOBODY)


def test_a_node_that_is_no_member_any_more_is_forgotten() -> None:
    place = Place()
    for _ in range(3):
        place.next(b=wrong_in(7))
    place.members = (A, C)
    assert place.next() == ({}, NOBODY)


def test_reports_of_few_places_are_kept_and_none_of_those_that_were_judged() -> None:
    comparison = Comparison(A, None)
    for position in range(100):
        comparison.hear(Report(B, 1, position, False, ALL_SHARDS, SAME))
    assert len(comparison._reports) == PLACES_MAX
    comparison.judge(200, (A, B))
    comparison.hear(Report(B, 1, 150, False, ALL_SHARDS, SAME))
    assert comparison._reports == {}


@pytest.mark.parametrize("apart", [False, True])
def test_a_report_comes_back(apart: bool) -> None:
    report = Report(A, 2**63, 2**64 - 1, apart, 2**64 - 2, (*SAME[:-1], 2**64 - 1))
    assert decode_report(encode_report(report)) == report


def test_what_is_no_report_is_refused() -> None:
    good = encode_report(Report(A, 1, 2, False, ALL_SHARDS, SAME))
    for position, wrong in ((0, 1), (0, 3), (1, 2), (26, 7), (27, 0xFF), (27, ord("T"))):
        with pytest.raises(ReportError):
            decode_report(good[:position] + bytes((wrong,)) + good[position + 1 :])
    first_format = b"\x01" + good[1:-8]
    for bad in (b"", good[:-1], good + b"\0", good[:18], first_format):
        with pytest.raises(ReportError):
            decode_report(bad)
