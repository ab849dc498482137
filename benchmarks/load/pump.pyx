# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The inner loop of the open-loop generator: sends what is due, takes what has come, notes the wait from the time due.

In C because in Python it stops at 120,000 requests a second, which is less than the servers it is to load. Built at run time
by benchmarks/compiled.py. Invariant: at most one request is in flight a connection.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc


cdef extern from "time.h" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef extern from "sys/socket.h" nogil:
    int MSG_NOSIGNAL
    int MSG_DONTWAIT
    Py_ssize_t send(int fd, const void* data, size_t size, int flags)
    Py_ssize_t recv(int fd, void* data, size_t size, int flags)

cdef extern from "sys/epoll.h" nogil:
    int EPOLLIN
    int EPOLL_CTL_ADD
    union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int count, int timeout_ms)

cdef extern from "unistd.h" nogil:
    int close(int fd)

cdef enum:
    CONNECTIONS_MAX = 1024
    EVENTS = 64                # a turn of sending follows at least so often
    ANSWER_BYTES_MAX = 65536


cdef int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000000000 + now.tv_nsec


cdef class Pump:
    """sockets: connected, at most CONNECTIONS_MAX. messages: whole requests, sent in turn. answer_bytes: size of every answer.

    latencies_ns and due_ns have room for `total` int64 each; entry n is the n-th answer's, due_ns counted from start_ns.
    """

    cdef:
        list _messages
        int _epoll
        int _count
        int _free_count
        int[1024] _fds
        int[1024] _free
        Py_ssize_t[1024] _received
        int64_t[1024] _due_ns
        int64_t _start_ns
        double _interval_ns
        Py_ssize_t _answer_bytes
        int64_t[::1] _latencies_ns
        int64_t[::1] _dues_ns
        char* _buffer
        readonly int64_t total
        readonly int64_t sent
        readonly int64_t answered

    def __cinit__(self):
        self._epoll = -1
        self._buffer = <char*>malloc(ANSWER_BYTES_MAX)
        if self._buffer == NULL:
            raise MemoryError

    def __init__(self, list sockets, list messages, Py_ssize_t answer_bytes, double rate_per_s, int64_t start_ns,
                 int64_t[::1] latencies_ns not None, int64_t[::1] due_ns not None):
        cdef epoll_event event
        cdef int index
        assert len(sockets) <= CONNECTIONS_MAX and answer_bytes < ANSWER_BYTES_MAX and messages
        self._messages = messages
        self._answer_bytes = answer_bytes
        self._interval_ns = 1e9 / rate_per_s
        self._start_ns = start_ns
        self._latencies_ns, self._dues_ns = latencies_ns, due_ns
        self.total = latencies_ns.shape[0]
        self._epoll = epoll_create1(0)
        self._count = self._free_count = len(sockets)
        for index in range(self._count):
            self._fds[index] = sockets[index].fileno()
            self._free[index] = index
            event.events = EPOLLIN
            event.data.u32 = index
            if self._epoll < 0 or epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._fds[index], &event) != 0:
                raise OSError("epoll")

    def __dealloc__(self):
        free(self._buffer)
        if self._epoll >= 0:
            close(self._epoll)

    def run_until(self, int64_t until_ns) -> bool:
        """Works until that time of CLOCK_MONOTONIC → whether all is answered. Raises ConnectionError on any other answer."""
        cdef int64_t now = monotonic_ns()
        while now < until_ns and self.answered < self.total:
            self._send_due(now)
            self._take_answers()
            now = monotonic_ns()
        return self.answered == self.total

    cdef int _send_due(self, int64_t now) except -1:
        cdef int64_t due = <int64_t>((now - self._start_ns) / self._interval_ns) if now > self._start_ns else 0
        cdef int index
        cdef bytes message
        cdef Py_ssize_t size
        if due > self.total:
            due = self.total
        while self.sent < due and self._free_count > 0:
            self._free_count -= 1
            index = self._free[self._free_count]
            message = self._messages[self.sent % len(self._messages)]
            size = len(message)
            self._due_ns[index] = self._start_ns + <int64_t>(self.sent * self._interval_ns)
            self._received[index] = 0
            if send(self._fds[index], <const char*>message, size, MSG_NOSIGNAL | MSG_DONTWAIT) != size:
                raise ConnectionError("a request could not be sent whole")
            self.sent += 1
        return 0

    cdef int _take_answers(self) except -1:
        cdef epoll_event[64] events
        cdef int ready = epoll_wait(self._epoll, events, EVENTS, 0), number, index
        cdef int64_t now = monotonic_ns()
        cdef Py_ssize_t size
        for number in range(ready):
            index = events[number].data.u32
            size = recv(self._fds[index], self._buffer, ANSWER_BYTES_MAX, MSG_DONTWAIT)
            self._received[index] += size
            if size <= 0 or self._received[index] > self._answer_bytes:
                raise ConnectionError(f"an answer ended or was too long: {self._buffer[:max(size, 0)][:300]!r}")
            if self._received[index] < self._answer_bytes:
                continue
            if size == self._answer_bytes and self._buffer[:13] != b"HTTP/1.1 200 ":
                raise ConnectionError(f"an answer is not 200: {self._buffer[:size][:300]!r}")
            self._latencies_ns[self.answered] = now - self._due_ns[index]
            self._dues_ns[self.answered] = self._due_ns[index] - self._start_ns
            self.answered += 1
            self._free[self._free_count] = index
            self._free_count += 1
        return 0
