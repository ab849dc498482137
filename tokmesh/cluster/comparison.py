"""Whether the members' tables and API keys are the same, judged by what they report of each place of the stream. Here a table has
65 parts: the sessions of each shard, and the keys.

All that report of one place speak of the same records: tables that differ there differ for good, and only a fault of the comparing
itself could make them differ for a moment. So a part differs when it did at PLACES_IN_A_ROW places, one after the other, that both
nodes reported of; one at which they are the same ends that.

A node is outvoted in a part when a majority of the nodes that are to have it, without it, has one and the same sum there, and it
has another, as often in a row; a place without such a majority neither counts nor ends that. Who is outvoted stands apart, unless
every node that reported is: then the comparing is wrong, or nobody is right. Reports of nodes that stand apart already are no
votes. Every node judges by the same reports, so that all come to the same.

Bounds: reports of PLACES_MAX places are kept, one a node, of members only when they are judged. They are the earliest that are
still to be judged: places that never come keep out none that does.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from tokmesh.cluster.report import KEYS, PARTS, Report
from tokmesh.ids import MEMBERS_MAX

PLACES_IN_A_ROW: Final = 3
PLACES_MAX: Final = 4


class Verdict(NamedTuple):
    """differing: of each other member, the number of parts in which its table differs from this node's; only those where there are
    any. outvoted: the nodes that stand apart, or are to. keys: those that differ in their API keys."""

    differing: dict[str, int]
    outvoted: frozenset[str]
    keys: frozenset[str]


class Comparison:
    """Of the node of that id. copies: how many nodes are to hold each shard; None: all. compared_total: places at which its table
    was compared with another."""

    def __init__(self, node_id: str, copies: int | None) -> None:
        self._node_id = node_id
        self._copies = copies
        self._reports: dict[int, dict[str, Report]] = {}
        self._judged = 0
        self._differing: dict[str, list[int]] = {}  # for each other node and part: at how many places in a row
        self._outvoted: dict[str, list[int]] = {}
        self._voters: frozenset[str] = frozenset()  # at the last place
        self.compared_total = 0

    def hear(self, report: Report) -> None:
        """A node's report, this one's own among them."""
        if report.position <= self._judged:
            return
        reports = self._reports.setdefault(report.position, {})
        if len(reports) < MEMBERS_MAX:
            reports[report.node_id] = report
        if len(self._reports) > PLACES_MAX:
            del self._reports[max(self._reports)]

    def judge(self, position: int, members: Iterable[str]) -> Verdict:
        """What follows from the reports of places before `position`, which is the next."""
        known = frozenset(members)
        for streaks in (self._differing, self._outvoted):
            for node_id in streaks.keys() - known:
                del streaks[node_id]
        for place in sorted(each for each in self._reports if each < position):
            reports = {node_id: each for node_id, each in self._reports.pop(place).items() if node_id in known}
            self._compare(reports)
            self._vote({node_id: each for node_id, each in reports.items() if not each.apart}, len(known))
        self._judged = max(self._judged, position - 1)
        outvoted = frozenset(node_id for node_id, streak in self._outvoted.items() if max(streak) >= PLACES_IN_A_ROW)
        keys = frozenset(node_id for node_id, streak in self._differing.items() if streak[KEYS] >= PLACES_IN_A_ROW)
        return Verdict(self._counts(), frozenset() if outvoted >= self._voters else outvoted, keys)

    def _compare(self, reports: dict[str, Report]) -> None:
        own = reports.get(self._node_id)
        others = [each for node_id, each in reports.items() if node_id != self._node_id]
        if own is None or not others:
            return
        self.compared_total += 1
        for other in others:
            streak = self._differing.setdefault(other.node_id, [0] * PARTS)
            for part in range(PARTS):
                differs = own.has(part) and other.has(part) and other.sums[part] != own.sums[part]
                streak[part] = streak[part] + 1 if differs else 0

    def _vote(self, votes: dict[str, Report], members: int) -> None:
        if not votes:
            return
        self._voters = frozenset(votes)
        for part in range(PARTS):
            owners = members if part == KEYS or self._copies is None else min(self._copies, members)
            counts = Counter(each.sums[part] for each in votes.values() if each.has(part))
            found, count = counts.most_common(1)[0] if counts else (0, 0)
            for node_id, each in votes.items():
                streak = self._outvoted.setdefault(node_id, [0] * PARTS)
                if not each.has(part):
                    streak[part] = 0
                elif count >= owners // 2 + 1:
                    streak[part] = streak[part] + 1 if each.sums[part] != found else 0

    def _counts(self) -> dict[str, int]:
        counts = {
            node_id: sum(places >= PLACES_IN_A_ROW for places in streak) for node_id, streak in self._differing.items()
        }
        return {node_id: count for node_id, count in counts.items() if count}
