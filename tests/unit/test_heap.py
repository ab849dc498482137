"""When the heap is trimmed: after a flood of connections, not before its end, and not over and over."""

import asyncio

import pytest

from tokmesh.host import heap
from tokmesh.host.heap import CLOSED_MIN, TRIM_INTERVAL_S, HeapKeeper


def test_a_flood_is_over_when_enough_connections_have_closed() -> None:
    open_now = [0]
    keeper = HeapKeeper(lambda: open_now[0])
    due = []
    for count in (0, 2000, 2000 - CLOSED_MIN + 1, 2000 - CLOSED_MIN, 2000 - CLOSED_MIN, 0):
        open_now[0] = count
        due.append(keeper.due(100.0))
    assert due == [False, False, False, True, False, False]
    assert not keeper.due(100.0 + TRIM_INTERVAL_S - 0.001)
    assert keeper.due(100.0 + TRIM_INTERVAL_S), "what closed meanwhile is not forgotten"


def test_the_trim_runs_beside_the_loop_until_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LOOK_INTERVAL_S", 0.001)
    counts = [CLOSED_MIN, 0]
    done = asyncio.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def trim() -> None:
            loop.call_soon_threadsafe(done.set)

        keeper = HeapKeeper(lambda: counts.pop(0) if counts else 0, trim)
        keeper.start(loop)
        await done.wait()
        keeper.stop()
        counts.extend(range(100))
        await asyncio.sleep(0.02)
        assert len(counts) == 100, "it looked after the stop"

    asyncio.run(asyncio.wait_for(run(), 30))
