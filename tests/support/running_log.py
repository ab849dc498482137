"""The log of one node while a test uses it: recovered, started on an event loop, closed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tokmesh._core.streamed import StreamedBatch
from tokmesh.log.file_log import FileLog, Record

LIFE_S_MAX: Final = 60.0

R = TypeVar("R", bound=Record)
A = TypeVar("A")


def run_log(
    log: FileLog[R],
    applied: A,
    body: Callable[[FileLog[R], A], Awaitable[None]],
    apply: Callable[[int, R], object],
    apply_all: Callable[[int, StreamedBatch, int, int], None] | None = None,
) -> A:
    """Runs `body`; returns `applied`, in which apply and apply_all, as FileLog's, note what the log had and what came."""

    async def life() -> None:
        log.recover(apply)
        log.start(asyncio.get_running_loop(), apply, apply_all)
        try:
            await body(log, applied)
        finally:
            await log.close()

    asyncio.run(asyncio.wait_for(life(), LIFE_S_MAX))
    return applied
