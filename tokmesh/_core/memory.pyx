"""Zones: flat memory that another process of the host can map, one memory file each.

A zone is reserved and mapped once at its largest size, so that no mapping ever moves or shrinks; a page costs memory only from
its first write. Structures inside refer to each other by numbers and offsets, never by pointers.
"""

from libc.stdint cimport uint32_t, uint64_t
from posix.mman cimport munmap
from posix.unistd cimport close


cdef extern from "platform.h" nogil:
    int tm_memory_file(const char* name, size_t size)
    void* tm_memory_map(int fd, size_t size)
    void tm_memory_release(void* start, size_t size)
    size_t tm_memory_committed(int fd)


cdef class Zone:
    """`contents_bytes` of zeroed memory behind one page of header. OSError if the system refuses the reservation."""

    def __cinit__(self, str name, int kind, size_t contents_bytes, uint64_t epoch):
        self.descriptor = -1
        self.bytes_max = PAGE_BYTES + (contents_bytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        self.descriptor = tm_memory_file(f"tokmesh-{name}".encode(), self.bytes_max)
        if self.descriptor < 0:
            raise OSError(f"cannot reserve {self.bytes_max} bytes of shareable memory for {name}")
        self.base = <char*>tm_memory_map(self.descriptor, self.bytes_max)
        if self.base == NULL:
            raise OSError(f"cannot map {self.bytes_max} bytes of shareable memory for {name}")
        cdef ZoneHeader* header = <ZoneHeader*>self.base
        header.magic = 0x5A4853454D4B4F54
        header.layout = ZONE_LAYOUT
        header.kind = <uint32_t>kind
        header.bytes_max = self.bytes_max
        header.epoch = epoch

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.bytes_max)
        if self.descriptor >= 0:
            close(self.descriptor)

    cdef size_t committed_bytes(self) noexcept nogil:
        return tm_memory_committed(self.descriptor)

    cdef void release(self, size_t offset, size_t size) noexcept nogil:
        # Both page-aligned. The pages read as zeros afterwards and cost nothing until written again.
        tm_memory_release(self.base + offset, size)

    def committed(self) -> int:
        """Bytes of memory in use."""
        return self.committed_bytes()
