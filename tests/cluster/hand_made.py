"""A quorum among peers whose beats are made by hand, one at a time."""

from collections.abc import Iterable

from tokmesh.cluster.beat import Beat, Echo
from tokmesh.cluster.quorum import Figures, Quorum

MS = 1_000_000
SECOND = 1_000 * MS
STALENESS_NS = 2 * SECOND
T0 = 1_000 * SECOND
SELF, B, C, D, E = (f"tmnd-{letter}" for letter in "abcde")


class HandMade:
    """The node SELF, counted at `applied`, among `others`; peers' numbers rise by themselves."""

    def __init__(self, others: Iterable[str], *, applied: int = 10, counted: bool = True, incarnation: int = 1) -> None:
        self.quorum = Quorum(SELF, incarnation, max_staleness_ns=STALENESS_NS)
        self.quorum.set_members({SELF, *others}, T0)
        self.quorum.advance(applied, counted, T0)
        self._number = 0

    def send(self, now_ns: int) -> Echo:
        """Our next beat leaves; its echo, as of the moment it arrives."""
        beat = self.quorum.make_beat(now_ns, notice=False, figures=Figures())
        return Echo(SELF, beat.incarnation, beat.number, 0)

    def hear(
        self,
        node_id: str,
        now_ns: int,
        *echoes: Echo,
        applied: int = 10,
        counted: bool = True,
        notice: bool = False,
        incarnation: int = 1,
        number: int | None = None,
        max_staleness_ns: int = STALENESS_NS,
    ) -> list[int]:
        """A beat of `node_id` arrives."""
        self._number += 1
        beat_number = self._number if number is None else number
        staleness_ms = max_staleness_ns // MS
        beat = Beat(
            node_id, incarnation, beat_number, applied, counted, notice, echoes, 3, 2, "1.0", max_staleness_ms=staleness_ms
        )
        return self.quorum.hear(beat, now_ns)

    def prove(self, now_ns: int, *peers: str, applied: int = 10) -> None:
        """We send and all of `peers` echo at once."""
        echo = self.send(now_ns)
        for peer in peers:
            self.hear(peer, now_ns, echo, applied=applied)
