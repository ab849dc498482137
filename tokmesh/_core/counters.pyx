"""Blocks of unsigned 64-bit counters: written by one worker, read by any scrape.

A block lives in a shared anonymous mapping, so that workers forked later are summed by whoever renders. Adding is one
machine instruction; nothing is computed until a scrape reads. Counters never go down and start at 0.
"""

from libc.stdint cimport uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

NAMES = tuple(
    name.lower()
    for name, _ in sorted(Counter.__members__.items(), key=lambda item: item[1])
    if name != "COUNTER_COUNT"
)


cdef class CounterBlock:
    """`size` counters, all 0."""

    def __cinit__(self, Py_ssize_t size=COUNTER_COUNT):
        if size <= 0:
            raise ValueError("a block holds at least one counter")
        cdef void* memory = mmap(NULL, size * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise MemoryError()
        self._values = <uint64_t*>memory
        self.size = size

    def __dealloc__(self):
        if self._values != NULL:
            munmap(self._values, self.size * sizeof(uint64_t))

    cdef void add(self, Py_ssize_t index, uint64_t amount) noexcept nogil:
        # One writer per block: a plain add; readers see an old or a new value, never a torn one (aligned 8 bytes).
        self._values[index] += amount

    def increment(self, Py_ssize_t index, uint64_t amount=1) -> None:
        """Adds `amount` to counter `index`; IndexError outside the block."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        self.add(index, amount)

    def read(self, Py_ssize_t index) -> int:
        """The value of counter `index`; IndexError outside the block."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self._values[index]

    def read_all(self) -> list[int]:
        """All values, in order of position."""
        return [self._values[index] for index in range(self.size)]
