"""What must go on while the node lives goes on after a failure, which is told; and ends when it is told to."""

import asyncio
import logging

import pytest

from tests.cluster.hand_made import B, C, HandMade
from tests.support.waiting import until
from tokmesh._core.clock import Clock
from tokmesh.cluster.beating import Beating
from tokmesh.cluster.ending import end
from tokmesh.cluster.lasting import begin
from tokmesh.cluster.quorum import Figures


def test_work_that_failed_begins_anew_and_the_log_tells_why(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise ValueError(f"odd bytes {calls}")
        await asyncio.Event().wait()

    async def run() -> None:
        task = begin(work, "tokmesh-work")
        await until(lambda: calls == 3, "it goes on")
        assert not task.done()
        await end(task)
        assert task.cancelled() and calls == 3

    with caplog.at_level(logging.ERROR, "tokmesh.cluster"):
        asyncio.run(run())
    told = [(record.__dict__["task"], str(record.exc_info and record.exc_info[1])) for record in caplog.records]
    assert told == [("tokmesh-work", "odd bytes 1"), ("tokmesh-work", "odd bytes 2")]


def test_a_node_beats_on_after_a_beat_that_could_not_be_made() -> None:
    class Counts:
        sent = 0

        async def publish(self, subject: str, payload: bytes) -> None:
            self.sent += 1

    asked = 0

    def figures() -> Figures:
        nonlocal asked
        asked += 1
        return Figures(pending=-1 if asked == 2 else 0)  # out of its bounds

    async def run() -> None:
        link, quorum = Counts(), HandMade((B, C)).quorum
        beating = Beating(link, "beats", quorum, Clock(), None, figures, lambda: None)  # type: ignore[arg-type]
        beating.start()
        await until(lambda: link.sent >= 3, "it beats on", 10)
        await beating.stop()

    asyncio.run(run())


def test_work_that_has_come_to_its_end_does_not_begin_anew() -> None:
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1

    async def run() -> None:
        await asyncio.wait_for(begin(work, "tokmesh-work"), 1)
        assert calls == 1

    asyncio.run(run())
