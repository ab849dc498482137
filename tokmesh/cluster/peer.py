"""A peer: what one incarnation of one member has told in its beats, and what follows from each of them.

Always holds: numbers rise; what it told to have applied never falls; a vouch is given for a time of ours only when the peer sent
something after that time, and is good only once we have applied all that it had applied by then (quorum.py has the argument).
"""

from collections.abc import Iterable
from typing import NamedTuple

from tokmesh.cluster.beat import Beat, Echo
from tokmesh.cluster.trail import Trail


class Link(NamedTuple):
    """How late, by our clock, a peer can have heard another member before it sent its latest whole beat."""

    until_ns: int
    echoed: bool  # the beat had an echo of that member


class Peer:
    """One incarnation of one member, from its first beat on."""

    __slots__ = (
        "_open_vouches",
        "_vouched_ns",
        "applied",
        "beat",
        "heard_ns",
        "heard_of_us",
        "links",
        "links_applied",
        "progress",
        "round_trip_ns",
    )

    def __init__(self, beat: Beat, now_ns: int, members: Iterable[str]) -> None:
        self.beat = beat
        self.heard_ns = now_ns  # of the beat with the highest number: the one that our echo is of
        self.heard_of_us = 0  # the highest number of our beats that it has echoed
        self.applied = 0
        self.progress = Trail()  # when we first heard how far it had applied
        self.round_trip_ns: int | None = None
        self.links: dict[str, Link] = {}
        self.links_applied = -1  # what it had applied when it told the links; -1: has told none
        self._open_vouches = Trail()  # (a time of ours, what has to be applied here before the vouch is good)
        self._vouched_ns: int | None = None
        self._take(beat, now_ns, members)

    def hear(self, beat: Beat, now_ns: int, members: Iterable[str]) -> bool:
        """Takes in a beat of this incarnation; False for one that is not newer than the last."""
        if beat.number <= self.beat.number:
            return False
        self._take(beat, now_ns, members)
        return True

    def _take(self, beat: Beat, now_ns: int, members: Iterable[str]) -> None:
        if beat.applied > self.applied or not len(self.progress):
            self.progress.add(now_ns, beat.applied)
        self.applied = max(self.applied, beat.applied)
        self.beat = beat
        self.heard_ns = now_ns
        if not beat.notice:
            self._take_links(beat.echoes, now_ns, members)

    def _take_links(self, echoes: tuple[Echo, ...], now_ns: int, members: Iterable[str]) -> None:
        ages_ns = {echo.node_id: echo.age_ns for echo in echoes}
        links = {}
        for node_id in members:
            age_ns = ages_ns.get(node_id)
            known = self.links.get(node_id)
            if age_ns is not None:
                links[node_id] = Link(now_ns - age_ns, True)
            elif known is not None and not known.echoed:
                links[node_id] = known
            else:
                # Not heard by this incarnation, or forgotten: by the one before it perhaps until it sent its first beat.
                links[node_id] = Link(now_ns, False)
        self.links = links
        self.links_applied = self.applied

    def forget(self, node_id: str) -> None:
        """What it told about a member that is none any more."""
        self.links.pop(node_id, None)

    def take_echo(self, echo: Echo, sent_ns: int, now_ns: int) -> int | None:
        """Its latest beat echoes ours that was sent at `sent_ns`; returns the round trip in ns, None: the age cannot be true."""
        if self.beat.counted:
            self._open_vouches.add(sent_ns, self.applied)
        round_trip_ns = now_ns - sent_ns - echo.age_ns
        if round_trip_ns < 0:
            return None
        self.round_trip_ns = round_trip_ns
        return round_trip_ns

    def vouched_ns(self, applied: int) -> int | None:
        """The latest time of ours that it vouches for, to us who have applied as far as `applied`."""
        vouched_ns = self._open_vouches.last_within(applied)
        if vouched_ns is not None:
            self._vouched_ns = vouched_ns
            self._open_vouches.drop_within(applied)
        return self._vouched_ns
