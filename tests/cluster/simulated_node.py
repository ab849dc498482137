"""A simulated node: a Quorum, a clock that is off by any amount, a place in the stream, and what a crash leaves of it."""

import random

from tests.cluster.simulated_stream import Hello, Members, SimulatedStream
from tokmesh.cluster.beat import Beat, decode_beat, encode_beat
from tokmesh.cluster.quorum import Figures, Quorum

LOST_TAIL_MAX = 12


class SimulatedNode:
    """Times handed in are the simulation's; the node itself sees only its own clock."""

    def __init__(self, node_id: str, stream: SimulatedStream, chance: random.Random, max_staleness_ns: int) -> None:
        self.node_id = node_id
        self.stream = stream
        self.chance = chance
        self.max_staleness_ns = max_staleness_ns
        self.offset_ns = chance.randrange(10**15)
        self.applied = 1
        self.is_alive = True
        self.is_paused = False
        self.is_cut_from_stream = False
        self.is_slow = False
        self.has_notice_due = False
        self.inbox: list[bytes] = []  # what arrived while it was paused
        self.incarnation = 0
        self.start(0)

    def start(self, at_ns: int) -> None:
        """Starts anew from what it has kept."""
        self.incarnation += 1
        self.is_alive, self.is_paused = True, False
        self.is_counted = False
        self.inbox = []
        self.quorum = Quorum(self.node_id, self.incarnation, max_staleness_ns=self.max_staleness_ns)
        self.quorum.set_members(self.stream.members_at(self.applied), self.clock_ns(at_ns))
        self.quorum.advance(self.applied, False, self.clock_ns(at_ns))

    def crash(self) -> None:
        """Dies, and loses the last of what it had applied and told."""
        self.is_alive = False
        self.applied = max(1, self.applied - self.chance.choice((0, 1, self.chance.randint(0, LOST_TAIL_MAX))))

    def clock_ns(self, at_ns: int) -> int:
        """Its own clock at a time of the simulation."""
        return at_ns + self.offset_ns

    @property
    def runs(self) -> bool:
        """Whether it does anything at all."""
        return self.is_alive and not self.is_paused

    @property
    def has_stream(self) -> bool:
        """Whether it can publish and is sent entries."""
        return self.runs and self.stream.is_up and not self.is_cut_from_stream

    def apply(self, count: int, at_ns: int) -> bool:
        """Applies up to `count` entries; False when there was none."""
        last = min(len(self.stream.entries), self.applied + count)
        if last == self.applied:
            return False
        for entry in self.stream.entries[self.applied : last]:
            self.is_counted = self.is_counted or entry == Hello(self.node_id, self.incarnation)
            if isinstance(entry, Members):
                self.quorum.set_members(entry.node_ids, self.clock_ns(at_ns))
        self.applied = last
        self.quorum.advance(last, self.is_counted, self.clock_ns(at_ns))
        return True

    def make_beat(self, at_ns: int, *, notice: bool) -> bytes:
        """The next beat's bytes."""
        beat = self.quorum.make_beat(self.clock_ns(at_ns), notice=notice, figures=Figures(7, 1, "1.0"))
        return encode_beat(beat)

    def hear(self, data: bytes, at_ns: int) -> list[int]:
        """Takes a beat in."""
        beat: Beat = decode_beat(data)
        return self.quorum.hear(beat, self.clock_ns(at_ns))

    def fresh_until_ns(self, at_ns: int) -> int | None:
        """Until when it would answer reads, in the simulation's time."""
        until_ns = self.quorum.fresh_until_ns(self.clock_ns(at_ns)) if self.is_alive else None
        return None if until_ns is None else until_ns - self.offset_ns
