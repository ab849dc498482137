"""The last few records that a node took from its stream, by which another answer is known to be of the same stream.

A stream that was made anew under the old name counts from 1 again, and a replica does not say which of the two it holds when it
gives records. So it is asked for more than is lacking, from the oldest record that is remembered on: what it has up to where the
node stands must be what the node took, to the byte, at the same places, and at least one of these must still be there (the stream
keeps only the last record of a subject, so that any of them may have been replaced). Before that nothing newer is believed.
A record names its node, the start of that node and its number there: no two of a cluster are equal.
"""

from collections import deque
from typing import Final

from tokmesh._core.streamed import StreamedBatch

RECORDS_MAX: Final = 64  # of up to 64 KB each


class Recent:
    """In rising order of their sequence."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: deque[tuple[int, bytes]] = deque(maxlen=RECORDS_MAX)

    def __len__(self) -> int:
        return len(self._records)

    def note(self, batch: StreamedBatch) -> None:
        """It was taken. A batch that does not come after what is here begins anew: the node was set back."""
        if self._records and batch.previous < self._records[-1][0]:
            self._records.clear()
        count = len(batch)
        for index in range(max(0, count - RECORDS_MAX), count):
            self._records.append((batch.place(index)[0], batch.envelope(index)))

    @property
    def oldest(self) -> int:
        """The sequence of the oldest; there must be one."""
        return self._records[0][0]

    @property
    def newest(self) -> int:
        """The sequence of the last; 0 without one."""
        return self._records[-1][0] if self._records else 0

    def proof(self) -> "Proof":
        """For one answer, which begins at `oldest`."""
        return Proof(dict(self._records))


class Proof:
    """Fed the records of one answer in their order. found: how many of them the node took."""

    __slots__ = ("_last", "_taken", "found", "is_other")

    def __init__(self, taken: dict[int, bytes]) -> None:
        self._taken = taken
        self._last = max(taken)
        self.found = 0
        self.is_other = False  # there is a record at a place where the node found another, or none

    def holds_for(self, sequence: int, payload: bytes) -> bool:
        """Whether this record is newer than what the node took, and proved to be of the same stream."""
        if sequence > self._last:
            return self.found > 0 and not self.is_other
        if self._taken.get(sequence) == payload:
            self.found += 1
        else:
            self.is_other = True
        return False
