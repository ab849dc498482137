"""Randomness for identifiers, tokens and secrets: the kernel's, read in blocks, every byte handed out once."""

import os
import weakref

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

cdef enum:
    BLOCK_BYTES = 4096


cdef class RandomSource:
    """Random bytes, read from `read` (the kernel by default) a block at a time; no byte is handed out twice.

    A forked child drops the block it inherited, so that parent and child never share a byte.
    """

    def __init__(self, read=os.urandom):
        self._read = read
        self._block = b""
        drop = weakref.WeakMethod(self._drop)
        os.register_at_fork(after_in_child=lambda: (method := drop()) and method())

    def take(self, Py_ssize_t size) -> bytes:
        """`size` fresh random bytes, 0 ≤ size ≤ 4096; ValueError for more."""
        return PyBytes_FromStringAndSize(<const char*>self.next(size), size)

    cdef const uint8_t* next(self, Py_ssize_t size) except NULL:
        cdef Py_ssize_t start = self._position
        if not 0 <= size <= BLOCK_BYTES:
            raise ValueError("more random bytes than a block has")
        if start + size > PyBytes_GET_SIZE(self._block):
            self._block = self._read(BLOCK_BYTES)
            if PyBytes_GET_SIZE(self._block) != BLOCK_BYTES:
                raise ValueError("a block of another size")
            start = 0
        self._position = start + size
        return <const uint8_t*>PyBytes_AS_STRING(self._block) + start

    def _drop(self) -> None:
        self._block = b""
        self._position = 0
