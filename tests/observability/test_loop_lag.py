"""The sampler of event-loop lag."""

import asyncio
import time

from tokmesh.telemetry.loop_lag import LoopLag


def test_a_blocked_loop_shows_and_an_idle_one_does_not() -> None:
    lag = LoopLag()

    async def run() -> tuple[list[int], list[int]]:
        loop = asyncio.get_running_loop()
        lag.start(loop)
        lag.start(loop)  # a second start does not double the samples
        await asyncio.sleep(0.45)
        idle, _ = lag.histogram.snapshot(0)
        time.sleep(0.5)  # the loop cannot fire the timer meanwhile
        await asyncio.sleep(0.05)
        blocked, _ = lag.histogram.snapshot(0)
        lag.stop()
        await asyncio.sleep(0.25)
        stopped, _ = lag.histogram.snapshot(0)
        assert stopped == blocked
        return idle, blocked

    idle, blocked = asyncio.run(run())
    quarter_second = lag.histogram.bounds.index(250_000_000)
    assert 1 <= idle[-1] <= 4 and idle[quarter_second] == idle[-1]
    assert blocked[-1] - blocked[quarter_second] == 1
