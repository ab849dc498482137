"""Waiting for what must come true: as long as a busy machine needs, and no longer than a deadline that fails the test.

A test never sleeps for "long enough" and then looks: on a machine under load nothing is long enough.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.02


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Returns when `condition()` is true; AssertionError with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(LOOK_EVERY_S)


async def until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """As `wait_until`, while the event loop goes on."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(LOOK_EVERY_S)
