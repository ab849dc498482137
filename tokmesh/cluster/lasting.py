"""Work that goes on until its task is told to end, whatever fails in it: a peer's bytes, or a bug.

Nobody waits for such a task, so that one which has failed would say nothing, and what it does for the node would be missing: it is
told in the log, and begun again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

AGAIN_S: Final = 0.1

logger = logging.getLogger("tokmesh.cluster")


def begin(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
    """Its task, which also ends when `work` returns. work: leaves nothing behind that keeps another call from going on."""
    return asyncio.get_running_loop().create_task(_go_on(work, name), name=name)


async def _go_on(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    while True:  # ends by cancellation, or by a return
        try:
            await work()
        except Exception:
            logger.exception("unexpected: a task failed, and is begun again", extra={"task": name})
        else:
            return
        await asyncio.sleep(AGAIN_S)
