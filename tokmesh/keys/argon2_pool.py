"""Argon2id in a small pool of threads with a bound on what waits for it.

argon2-cffi computes without the GIL, so the loop goes on. More than `pending_max` at once is an answer of 503, never a queue.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import Type, hash_secret, verify_secret

from tokmesh.errors import ApiError

HASH_BYTES: Final = 32

T = TypeVar("T")


class Argon2Settings(Protocol):
    """`settings.security.auth.argon2` of the configuration."""

    @property
    def memory_kib(self) -> int: ...
    @property
    def iterations(self) -> int: ...
    @property
    def parallelism(self) -> int: ...


class Argon2Pool:
    """Hashes and verifies secrets. workers: threads; pending_max: running and waiting together."""

    def __init__(self, settings: Argon2Settings, *, workers: int = 2, pending_max: int = 32) -> None:
        self._settings = settings
        self._pending_max = pending_max
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tokmesh-argon2")
        self.pending = 0
        self.runs_total = 0

    def hash(self, secret: bytes, salt: bytes) -> "asyncio.Future[str]":
        """The verifier of `secret` as a PHC string. Raises ApiError TM-SYS-5030 when the pool is full."""
        return self._submit(lambda: self._hash(secret, salt))

    def verify(self, argon2_hash: str, secret: bytes) -> "asyncio.Future[bool]":
        """Whether `secret` is the one. Raises ApiError TM-SYS-5030 when the pool is full, or by the future when it cannot tell."""
        return self._submit(lambda: _verify(argon2_hash, secret))

    def close(self) -> None:
        """Drops what waits and ends the threads after what they are at."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        if self.pending >= self._pending_max:
            raise ApiError("TM-SYS-5030", {"reason": "authentication_busy"}, retry_after_s=1)
        self.pending += 1
        self.runs_total += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: object) -> None:
        self.pending -= 1

    def _hash(self, secret: bytes, salt: bytes) -> str:
        settings = self._settings
        return hash_secret(
            secret, salt, settings.iterations, settings.memory_kib, settings.parallelism, HASH_BYTES, Type.ID
        ).decode()


def _verify(argon2_hash: str, secret: bytes) -> bool:
    try:
        return verify_secret(argon2_hash.encode(), secret, Type.ID)
    except VerifyMismatchError:
        return False
    except VerificationError:
        # No memory, or a hash that is none: not a definite no.
        raise ApiError("TM-SYS-5030", {"reason": "authentication_failed"}, retry_after_s=1) from None
