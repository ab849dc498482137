"""The oracle of the simulation: knows every clock and every node, and says when a node would answer what it must not.

- A node that is fresh until F has applied all that was acknowledged, by any node, before F - max_staleness: so no answer given
  before F lacks a write that was acknowledged longer than max_staleness before the answer.
- A node that a `reach` once called applied or fenced is from then on, also after a restart, never fresh without that sequence.
- Once a `reach` waits for nobody, that holds for every node there is.
"""

from bisect import bisect_left

from tests.cluster.simulated_node import SimulatedNode


class Unsound(AssertionError):
    """A node would have answered a read that it must not answer."""


class Oracle:
    """Looks at nodes after everything that happens to them."""

    def __init__(self, max_staleness_ns: int) -> None:
        self.max_staleness_ns = max_staleness_ns
        self.fresh_looks = 0  # how often a node was fresh when looked at: a simulation in which none is would show nothing
        self.reaches_done = 0
        self.fenced_seen = 0
        self._acknowledged: list[int] = [0]
        self._acknowledged_ns: list[int] = [-(2**62)]
        self._floors: dict[str, int] = {}
        self._floor_of_all = 0

    def look(self, node: SimulatedNode, at_ns: int) -> None:
        """Raises Unsound. To be called after each event of `node`."""
        if node.quorum.majority_applied > self._acknowledged[-1]:
            self._acknowledged.append(node.quorum.majority_applied)
            self._acknowledged_ns.append(at_ns)
        until_ns = node.fresh_until_ns(at_ns)
        if until_ns is None:
            return
        # Strictly before: what happens in the same nanosecond has no order.
        needed = self._acknowledged[bisect_left(self._acknowledged_ns, until_ns - self.max_staleness_ns) - 1]
        if node.applied < needed:
            raise Unsound(f"{at_ns}: {node.node_id} fresh until {until_ns} at {node.applied}, lacks {needed}, acknowledged before")
        if until_ns > at_ns:
            self.fresh_looks += 1
            floor = max(self._floor_of_all, self._floors.get(node.node_id, 0))
            if node.applied < floor:
                raise Unsound(f"{at_ns}: {node.node_id} fresh at {node.applied}, was reached by {floor}")

    def judge_reach(self, judge: SimulatedNode, sequence: int, nodes: list[SimulatedNode], at_ns: int) -> bool:
        """Asks `judge` which nodes `sequence` has reached, holds all nodes against that, and says whether none is waited for."""
        reach = judge.quorum.reach(sequence, judge.clock_ns(at_ns))
        for node_id in reach.applied | reach.fenced:
            self._floors[node_id] = max(self._floors.get(node_id, 0), sequence)
        self.fenced_seen += len(reach.fenced)
        if not reach.waiting:
            self.reaches_done += 1
            self._floor_of_all = max(self._floor_of_all, sequence)
        for node in nodes:
            self.look(node, at_ns)
        return not reach.waiting
