"""A trail: at which times a rising sequence stood where.

Marks are (at_ns, sequence), both never falling. Old ones are thinned so that what is left at an age is about a sixteenth of that
age apart: a trail stays below MARKS_MAX marks whatever happens and for however long, and the present is exact.

Always holds: every mark that is left was recorded as it is, so a question is answered with a mark that is true, and thinning
only makes it a later one (`first_at`) or a lower one (`last_within`); the newest mark is never lost.
"""

from bisect import bisect_left, bisect_right
from typing import Final

MARKS_MAX: Final = 512

_AGE_SHARE: Final = 16
_APART_MIN_NS: Final = 1_000_000


class Trail:
    """Marks in order."""

    __slots__ = ("_sequences", "_times_ns")

    def __init__(self) -> None:
        self._times_ns: list[int] = []
        self._sequences: list[int] = []

    def __len__(self) -> int:
        return len(self._times_ns)

    def add(self, at_ns: int, sequence: int) -> None:
        """One more mark; one that falls behind the newest in time or in sequence is raised to it."""
        if self._times_ns:
            at_ns = max(at_ns, self._times_ns[-1])
            sequence = max(sequence, self._sequences[-1])
        self._times_ns.append(at_ns)
        self._sequences.append(sequence)
        if len(self._times_ns) >= MARKS_MAX:
            self._thin(at_ns)

    def first_at(self, sequence: int) -> int | None:
        """The earliest known time at which `sequence` was reached; None: not yet."""
        index = bisect_left(self._sequences, sequence)
        return self._times_ns[index] if index < len(self._sequences) else None

    def last_within(self, sequence: int) -> int | None:
        """The latest known time with a mark of at most `sequence`; None: there is none."""
        index = bisect_right(self._sequences, sequence)
        return self._times_ns[index - 1] if index else None

    def drop_within(self, sequence: int) -> None:
        """Forgets the marks of at most `sequence`."""
        index = bisect_right(self._sequences, sequence)
        del self._times_ns[:index], self._sequences[:index]

    def _thin(self, now_ns: int) -> None:
        kept = [len(self._times_ns) - 1]
        for index in range(len(self._times_ns) - 2, -1, -1):
            newer_ns = self._times_ns[kept[-1]]
            if newer_ns - self._times_ns[index] >= max(_APART_MIN_NS, (now_ns - newer_ns) // _AGE_SHARE):
                kept.append(index)
        kept.reverse()
        self._times_ns = [self._times_ns[index] for index in kept]
        self._sequences = [self._sequences[index] for index in kept]
