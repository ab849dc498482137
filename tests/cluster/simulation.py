"""A simulated cluster: nodes, links and a stream under random faults, in simulated time, the same again for the same seed.

Everything happens at a time of the heap: beats every quarter second, notices after progress, deliveries with any delay, twice or
never, entries of the stream, crashes, pauses, partitions of links (also one way, also few of them) and of the stream, members that
come and go. All clocks run at one rate and stand anywhere. An Oracle looks at a node after each of its events.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from functools import partial

from tests.cluster.oracle import Oracle
from tests.cluster.simulated_node import SimulatedNode
from tests.cluster.simulated_stream import Entry, Hello, Members, SimulatedStream, Write

MS = 1_000_000
SECOND = 1_000 * MS
BEAT_NS = 250 * MS
NOTICE_NS = 2 * MS
SPARES = 2
WATCHES_MAX = 6


class Simulation:
    """`size` members and two nodes that are none, from time 0 on."""

    def __init__(self, seed: int, size: int, max_staleness_ns: int) -> None:
        self.chance = random.Random(seed)
        self.now_ns = 0
        self.oracle = Oracle(max_staleness_ns)
        names = [f"tmnd-{letter}" for letter in "abcdefghij"[: size + SPARES]]
        self.stream = SimulatedStream(frozenset(names[:size]))
        self.nodes = [SimulatedNode(name, self.stream, self.chance, max_staleness_ns) for name in names]
        self.cut_links: set[tuple[str, str]] = set()
        self.loss = 0.0
        self.delay_max_ns = 5 * MS
        self.is_calm = False  # no new faults
        self.lags_seen = 0
        self._watches: list[tuple[SimulatedNode, int, int]] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._events = 0
        for node in self.nodes:
            self._after(self.chance.randrange(BEAT_NS), partial(self._beat, node, node.incarnation))
            self._after(0, partial(self._consume, node))
            self._after(0, partial(self._say_hello, node, node.incarnation))
        for step in (self._write, self._change_members, self._poll_watches, self._disturb):
            self._after(SECOND, step)

    def run(self, until_ns: int) -> None:
        """Lets everything happen up to that time."""
        while self._heap[0][0] <= until_ns:
            self.now_ns, _, event = heapq.heappop(self._heap)
            event()
        self.now_ns = until_ns
        for node in self.nodes:
            self.oracle.look(node, self.now_ns)

    def heal(self) -> None:
        """Ends every fault, at once and for good."""
        self.is_calm = True
        self._mend()
        for node in self.nodes:
            if not node.is_alive:
                self._start(node)
            self._resume(node)

    def members(self) -> list[SimulatedNode]:
        """The nodes that are members by the end of the stream."""
        members = self.stream.members_at(len(self.stream.entries))
        return [node for node in self.nodes if node.node_id in members]

    def _after(self, delay_ns: int, event: Callable[[], None]) -> None:
        self._events += 1
        heapq.heappush(self._heap, (self.now_ns + delay_ns, self._events, event))

    def _look(self, node: SimulatedNode) -> None:
        self.oracle.look(node, self.now_ns)

    # Beats

    def _beat(self, node: SimulatedNode, incarnation: int) -> None:
        if node.incarnation != incarnation or not node.is_alive:
            return
        self._after(BEAT_NS, partial(self._beat, node, incarnation))
        if node.runs:
            self._send(node, notice=False)

    def _notify(self, node: SimulatedNode, incarnation: int) -> None:
        node.has_notice_due = False
        if node.runs and node.incarnation == incarnation:
            self._send(node, notice=True)

    def _send(self, sender: SimulatedNode, *, notice: bool) -> None:
        data = sender.make_beat(self.now_ns, notice=notice)
        for receiver in self.nodes:
            if receiver is sender or (sender.node_id, receiver.node_id) in self.cut_links or self.chance.random() < self.loss:
                continue
            for _ in range(2 if self.chance.random() < 0.05 else 1):
                late = self.chance.random() < (0.0 if self.is_calm else 0.02)
                delay_ns = self.chance.randrange(4 * SECOND if late else self.delay_max_ns)
                self._after(delay_ns, partial(self._deliver, receiver, data))

    def _deliver(self, node: SimulatedNode, data: bytes) -> None:
        if node.is_paused:
            node.inbox.append(data)
        elif node.is_alive:
            self.lags_seen += len(node.hear(data, self.now_ns))
            self._look(node)

    # The stream

    def _publish(self, node: SimulatedNode, entry: Entry) -> None:
        if node.has_stream:
            self._after(self.chance.randrange(1, 30 * MS), partial(self._commit, node, node.incarnation, entry))

    def _commit(self, node: SimulatedNode, incarnation: int, entry: Entry) -> None:
        if self.stream.is_up and (sequence := self.stream.commit(entry)) is not None and not isinstance(entry, Hello):
            self._watches = [*self._watches, (node, incarnation, sequence)][-WATCHES_MAX:]

    def _consume(self, node: SimulatedNode) -> None:
        pace_ns = 800 * MS if node.is_slow else 15 * MS
        self._after(self.chance.randrange(MS, pace_ns), partial(self._consume, node))
        if node.has_stream and node.apply(1000 if self.is_calm else self.chance.randint(1, 6), self.now_ns):
            self._look(node)
            if not node.has_notice_due:
                node.has_notice_due = True
                self._after(NOTICE_NS, partial(self._notify, node, node.incarnation))

    def _say_hello(self, node: SimulatedNode, incarnation: int) -> None:
        if node.is_counted or node.incarnation != incarnation:
            return
        self._publish(node, Hello(node.node_id, incarnation))
        self._after(100 * MS, partial(self._say_hello, node, incarnation))

    def _write(self) -> None:
        self._after(self.chance.randrange(1, 250 * MS), self._write)
        self._publish(self.chance.choice(self.nodes), Write())

    def _change_members(self) -> None:
        self._after(self.chance.randrange(1, 4 * SECOND), self._change_members)
        if self.is_calm:
            return
        node, other = self.chance.choice(self.nodes), self.chance.choice(self.nodes)
        change = self.stream.change_within(node.applied)
        members = self.stream.members_at(node.applied) ^ {other.node_id}
        # One at a time: the change before must be acknowledged where the next is proposed.
        if members and node.quorum.majority_applied >= change:
            self._publish(node, Members(members, change))

    def _poll_watches(self) -> None:
        self._after(self.chance.randrange(1, 120 * MS), self._poll_watches)
        self._watches = [watch for watch in self._watches if not self._is_over(*watch)]

    def _is_over(self, judge: SimulatedNode, incarnation: int, sequence: int) -> bool:
        if not judge.is_alive or judge.incarnation != incarnation:
            return True
        return judge.runs and self.oracle.judge_reach(judge, sequence, self.nodes, self.now_ns)

    # Faults

    def _disturb(self) -> None:
        if self.is_calm:
            return
        self._after(self.chance.randrange(1, 1500 * MS), self._disturb)
        node = self.chance.choice(self.nodes)
        faults: list[Callable[[], None]] = [
            partial(self._crash, node),
            partial(self._pause, node),
            partial(self._cut_from_stream, node),
            self._partition,
            self._partition,
            self._cut_some_links,
            self._worsen,
            self._stop_stream,
            self._mend,
            self._mend,
        ]
        self.chance.choice(faults)()

    def _crash(self, node: SimulatedNode) -> None:
        if node.is_alive:
            node.crash()
            self._after(self.chance.choice((MS, 50 * MS, 3 * SECOND)), partial(self._start, node))

    def _start(self, node: SimulatedNode) -> None:
        if not node.is_alive:
            node.start(self.now_ns)
            self._beat(node, node.incarnation)
            self._say_hello(node, node.incarnation)
            self._look(node)

    def _pause(self, node: SimulatedNode) -> None:
        node.is_paused = node.is_alive
        self._after(self.chance.randrange(6 * SECOND), partial(self._resume, node))

    def _resume(self, node: SimulatedNode) -> None:
        node.is_paused = False
        inbox, node.inbox = node.inbox, []
        for data in inbox:
            self._deliver(node, data)

    def _cut_from_stream(self, node: SimulatedNode) -> None:
        node.is_cut_from_stream = True

    def _partition(self) -> None:
        names = [node.node_id for node in self.nodes]
        side = set(self.chance.sample(names, self.chance.randint(1, len(names) - 1)))
        self._cut((a, b) for a in names for b in names if (a in side) != (b in side))
        # The stream is on one side, or on both.
        cut_off = self.chance.choice((side, set(names) - side, set()))
        for node in self.nodes:
            node.is_cut_from_stream = node.node_id in cut_off

    def _cut_some_links(self) -> None:
        names = [node.node_id for node in self.nodes]
        share = self.chance.random()
        self._cut((a, b) for a in names for b in names if self.chance.random() < share)

    def _cut(self, links: Iterable[tuple[str, str]]) -> None:
        self.cut_links = set(links)

    def _worsen(self) -> None:
        self.loss = self.chance.choice((0.0, 0.1, 0.5))
        self.delay_max_ns = self.chance.choice((5 * MS, 200 * MS, 2 * SECOND))
        self.chance.choice(self.nodes).is_slow = True

    def _stop_stream(self) -> None:
        self.stream.is_up = False

    def _mend(self) -> None:
        self.cut_links = set()
        self.loss = 0.0
        self.delay_max_ns = 5 * MS
        self.stream.is_up = True
        for node in self.nodes:
            node.is_cut_from_stream = node.is_slow = False
