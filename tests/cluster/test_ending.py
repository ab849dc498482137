"""A task that is told to end ends, also when it does not hear it the first time."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.cluster.hand_made import B, C, HandMade
from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh.cluster import ending
from tokmesh.cluster.beating import Beating
from tokmesh.cluster.ending import end
from tokmesh.cluster.quorum import Figures

Loop = Callable[[asyncio.Event], Awaitable[None]]


async def waits_with_a_bound(event: asyncio.Event) -> None:
    """As beats do: until something happens, or a time is over, again and again."""
    while True:
        await asyncio.wait_for(event.wait(), 60)
        event.clear()


async def takes_it_for_its_own_end(event: asyncio.Event) -> None:
    """As nats-py does when it flushes."""
    try:
        await event.wait()
    except asyncio.CancelledError:
        pass
    await asyncio.sleep(60)


async def lose_a_cancellation(loop: Loop) -> "asyncio.Task[None]":
    """A task of that loop that was cancelled, and has not heard it."""
    event = asyncio.Event()
    task = asyncio.ensure_future(loop(event))
    assert isinstance(task, asyncio.Task)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if loop is waits_with_a_bound:
        event.set()
        await asyncio.sleep(0)  # what it waits for has ended, and it does not know yet
    task.cancel()
    await asyncio.wait([task], timeout=0.05)
    return task


@pytest.mark.parametrize("loop", [waits_with_a_bound, takes_it_for_its_own_end])
def test_a_lost_cancellation_is_repeated(loop: Loop) -> None:
    async def inside() -> None:
        task = await lose_a_cancellation(loop)
        if loop is takes_it_for_its_own_end or sys.version_info < (3, 12):
            assert not task.done(), "the cancellation was to be lost"
        await asyncio.wait_for(end(task), 10)
        assert task.cancelled()

    asyncio.run(inside())


def test_the_first_cancellation_by_end_itself_may_be_lost() -> None:
    async def inside() -> None:
        event = asyncio.Event()
        task = asyncio.create_task(takes_it_for_its_own_end(event))
        await asyncio.sleep(0)
        await asyncio.wait_for(end(task), 10)
        assert task.cancelled()

    asyncio.run(inside())


def test_a_node_that_hears_of_progress_while_it_ends_stops_beating() -> None:
    class Silence:
        sent = 0

        async def publish(self, subject: str, payload: bytes) -> None:
            self.sent += 1

    async def inside() -> None:
        link, quorum = Silence(), HandMade((B, C)).quorum
        beating = Beating(link, "beats", quorum, Clock(), None, Figures, lambda: None)  # type: ignore[arg-type]
        beating.start()
        await until(lambda: link.sent, "it beats")
        beating.progress()
        await asyncio.sleep(0)  # its wait is over, and it does not know yet
        await asyncio.wait_for(beating.stop(), 10)

    asyncio.run(inside())


def test_several_end_together_and_none_is_no_task() -> None:
    async def inside() -> None:
        async def fail() -> None:
            raise LookupError

        ended, failed = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(fail())
        await asyncio.wait([ended, failed])
        sleeping = asyncio.create_task(asyncio.sleep(60))
        await end(None, ended, failed, sleeping)
        assert sleeping.cancelled() and isinstance(failed.exception(), LookupError)

    asyncio.run(inside())


def test_a_task_that_never_hears_it_holds_up_nobody_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ending, "REPEAT_S", 0.01)

    async def inside() -> None:
        done = asyncio.Event()

        async def deaf() -> None:
            while not done.is_set():
                try:
                    await done.wait()
                except asyncio.CancelledError:
                    pass

        task = asyncio.create_task(deaf(), name="deaf")
        await asyncio.sleep(0)
        with caplog.at_level(logging.ERROR):
            await end(task)
        assert "does not end" in caplog.text
        done.set()
        await task

    asyncio.run(inside())
