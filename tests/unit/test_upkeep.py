"""Periodic work goes on after failures, hurries while there is a backlog, and flushes once more at the end."""

import asyncio

import pytest

from tokmesh.errors import ApiError
from tokmesh.host import upkeep
from tokmesh.host.upkeep import Upkeep


def test_a_backlog_is_worked_off_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_INTERVAL_S", 3600.0)
    monkeypatch.setattr(upkeep, "SWEEP_INTERVAL_BACKLOG_S", 0.0)
    backlogs = [3, 2, 1, 0]
    budgets: list[int] = []

    def sweep(budget: int) -> int:
        budgets.append(budget)
        return backlogs.pop(0)

    async def flush() -> None:
        flushes.append(len(budgets))

    async def run() -> None:
        work = Upkeep(sweep, flush)
        work.start(asyncio.get_running_loop())
        while backlogs:
            await asyncio.sleep(0.001)
        await work.stop()

    flushes: list[int] = []
    asyncio.run(asyncio.wait_for(run(), 30))
    assert budgets == [upkeep.SWEEP_BUDGET] * 4
    assert flushes == [4], "the end flushes once more"


def flushes_that_raise(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often it was flushed, each time in vain: three times, and once more at the end."""
    monkeypatch.setattr(upkeep, "FLUSH_INTERVAL_S", 0.001)
    calls = 0

    async def flush() -> None:
        nonlocal calls
        calls += 1
        raise error

    async def run() -> None:
        work = Upkeep(lambda budget: 0, flush)
        work.start(asyncio.get_running_loop())
        while calls < 3:
            await asyncio.sleep(0.001)
        await work.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
    return calls


def test_a_log_that_refuses_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flushes_that_raise(ApiError("TM-SYS-5001"), monkeypatch) >= 3


def test_a_bug_in_a_flush_is_told_and_ends_neither_the_flushing_nor_the_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = flushes_that_raise(ZeroDivisionError(), monkeypatch)
    assert len(caplog.records) == calls >= 4, "the end flushes once more"
    assert {record.getMessage() for record in caplog.records} == {"touches could not be flushed"}


def test_a_bug_in_a_step_does_not_end_the_sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_INTERVAL_S", 0.001)
    calls = 0
    told: list[object] = []

    def sweep(budget: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ZeroDivisionError
        return 0

    async def flush() -> None:
        return

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        work = Upkeep(sweep, flush)
        work.start(loop)
        while calls < 5:
            await asyncio.sleep(0.001)
        await work.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert [type(error) for error in told] == [ZeroDivisionError]
