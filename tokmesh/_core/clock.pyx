"""The server's clock: wall time that cannot be set back or forward under it.

`now_ms` is the wall clock at start plus what a monotonic clock has counted since, so that an administrator or a bad NTP server
moving the wall clock by ten years moves no expiry. It goes on while the machine is suspended: what was proved or has begun
before is older by that. A restart anchors anew.
"""

from libc.stdint cimport int64_t


cdef extern from "platform.h" nogil:
    int64_t tm_wall_ms()
    int64_t tm_monotonic_ns()


def monotonic_ns() -> int:
    """As Clock's."""
    return tm_monotonic_ns()


cdef class Clock:
    """Anchored clock. `anchor_ms`: Unix ms to start from; the wall clock when None."""

    def __init__(self, anchor_ms: int | None = None) -> None:
        self._anchor_wall_ms = tm_wall_ms() if anchor_ms is None else anchor_ms
        self._anchor_monotonic_ns = tm_monotonic_ns()

    cdef int64_t read_ms(self) noexcept nogil:
        return self.at_ms(tm_monotonic_ns())

    cdef int64_t at_ms(self, int64_t monotonic_ns) noexcept nogil:
        """Unix ms at a reading of the monotonic clock."""
        return self._anchor_wall_ms + (monotonic_ns - self._anchor_monotonic_ns) // 1000000

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self.read_ms()

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary point, for durations; not those of Python's time.monotonic_ns, which stands still while
        the machine is suspended."""
        return tm_monotonic_ns()

    def wall_offset_ms(self) -> int:
        """How far the machine's wall clock has moved away from this clock since the anchor, in ms (positive: wall is ahead)."""
        return tm_wall_ms() - self.read_ms()

    def shift(self, milliseconds: int) -> None:
        """Moves this clock; for tests that must see an hour pass."""
        self._anchor_wall_ms += milliseconds
