"""A trail: at which times a rising sequence stood where.

Marks are (at_ns, sequence), both never falling. Old ones are thinned so that what is left at an age is at most an eighth of that
age apart: a trail stays below MARKS_MAX marks (a century takes 450) whatever happens, and the present is exact.

Always holds: every mark that is left was recorded as it is, so a question is answered with a mark that is true, and thinning
only makes it a later one (`first_at`) or a lower one (`last_within`); neither the newest mark nor the oldest is ever lost.
"""

from bisect import bisect_left, bisect_right
from typing import Final

MARKS_MAX: Final = 512

_AGE_SHARE: Final = 8
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
        # A mark goes when its neighbours are close enough without it: so no gap grows beyond its share, however often this is done.
        times_ns = self._times_ns
        kept = [0]
        for index in range(1, len(times_ns) - 1):
            after_ns = times_ns[index + 1]
            if after_ns - times_ns[kept[-1]] > max(_APART_MIN_NS, (now_ns - after_ns) // _AGE_SHARE):
                kept.append(index)
        kept.append(len(times_ns) - 1)
        self._times_ns = [times_ns[index] for index in kept]
        self._sequences = [self._sequences[index] for index in kept]
