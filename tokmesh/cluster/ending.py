"""The end of a task that was told to end, also where the telling gets lost.

A cancellation can be lost: `asyncio.wait_for` of CPython 3.11 gives the result instead when what it waits for ends in the same
moment, and code that is not ours takes a CancelledError for an end of its own. A loop that is told once would go on for ever, and
whoever waits for it with it. So it is told again, REPEATS_MAX times at most.
"""

import asyncio
import logging
from typing import Any, Final

REPEAT_S: Final = 0.25
REPEATS_MAX: Final = 40

logger = logging.getLogger("tokmesh.cluster")


async def end(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancels them until they have ended; those that are None, or have, are none. What they raised is left to their owner."""
    waiting = {task for task in tasks if task is not None and not task.done()}
    for _ in range(REPEATS_MAX):
        if not waiting:
            return
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=REPEAT_S)
    for task in waiting:
        logger.error("a task does not end", extra={"task": task.get_name()})
