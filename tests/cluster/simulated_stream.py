"""The simulated stream: an ordered list of what was committed, and the list of members that it says at each of its sequences.

It stands for the replicated log, which is taken to work: it may be slow, refuse, or be out of reach; what it has committed stays.
"""

from typing import NamedTuple


class Write(NamedTuple):
    """A change of the state; which one does not matter here."""


class Members(NamedTuple):
    """The list of members from here on; refused unless `after` is the sequence of the change before it."""

    node_ids: frozenset[str]
    after: int


class Hello(NamedTuple):
    """What a node publishes after its start, to be counted once it comes back."""

    node_id: str
    incarnation: int


Entry = Write | Members | Hello


class SimulatedStream:
    """Entries in order; the sequence of the first is 1, and it is the first list of members."""

    def __init__(self, members: frozenset[str]) -> None:
        self.entries: list[Entry] = [Members(members, 0)]
        self.changes = [1]
        self.is_up = True

    def commit(self, entry: Entry) -> int | None:
        """The entry's sequence; None when it is refused."""
        if isinstance(entry, Members):
            if entry.after != self.changes[-1]:
                return None
            self.changes.append(len(self.entries) + 1)
        self.entries.append(entry)
        return len(self.entries)

    def change_within(self, sequence: int) -> int:
        """The sequence of the latest change of members up to `sequence`."""
        return max((each for each in self.changes if each <= sequence), default=1)

    def members_at(self, sequence: int) -> frozenset[str]:
        """The members by what is known up to `sequence`, from the first list on."""
        entry = self.entries[self.change_within(sequence) - 1]
        assert isinstance(entry, Members)
        return entry.node_ids
