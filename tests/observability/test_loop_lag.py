"""The sampler of event-loop lag, on a clock and a loop that only the test moves: a busy machine makes a real loop late as well."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tokmesh.telemetry import loop_lag
from tokmesh.telemetry.loop_lag import SAMPLE_SECONDS, LoopLag

START_NS = 1_000_000_000_000
SAMPLE_NS = int(SAMPLE_SECONDS * 1e9)


class ManualLoop:
    """What the sampler uses of a loop: timers, which `turn` fires when they are due; and the clock it reads."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.timers: list[tuple[int, asyncio.TimerHandle]] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time(self) -> float:
        return self.now_ns / 1e9

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio tells its loop."""

    def call_later(self, delay_s: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        due_ns = self.now_ns + int(delay_s * 1e9)
        handle = asyncio.TimerHandle(due_ns / 1e9, callback, args, self)  # type: ignore[arg-type]
        self.timers.append((due_ns, handle))
        return handle

    def turn(self, after_ns: int) -> None:
        """Time passes in which the loop did nothing; then it fires what is due."""
        self.now_ns += after_ns
        due = [timer for timer in self.timers if timer[0] <= self.now_ns]
        self.timers = [timer for timer in self.timers if timer[0] > self.now_ns]
        for _, handle in due:
            if not handle.cancelled():
                handle._run()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ManualLoop:
    made = ManualLoop()
    monkeypatch.setattr(loop_lag, "time", SimpleNamespace(monotonic_ns=made.monotonic_ns))
    return made


def test_a_blocked_loop_shows_and_an_idle_one_does_not(loop: ManualLoop) -> None:
    lag = LoopLag()
    lag.start(loop)  # type: ignore[arg-type]
    lag.start(loop)  # type: ignore[arg-type]  # a second start does not double the samples
    for _ in range(4):
        loop.turn(SAMPLE_NS)
    idle, _ = lag.histogram.snapshot(0)
    assert idle[0] == idle[-1] == 4, "four samples, none late"
    loop.turn(SAMPLE_NS + 500_000_000)
    blocked, _ = lag.histogram.snapshot(0)
    quarter_second, half_second = lag.histogram.bounds.index(250_000_000), lag.histogram.bounds.index(500_000_000)
    assert (blocked[quarter_second], blocked[half_second], blocked[-1]) == (4, 5, 5)


def test_a_stopped_sampler_takes_no_samples(loop: ManualLoop) -> None:
    lag = LoopLag()
    lag.start(loop)  # type: ignore[arg-type]
    loop.turn(SAMPLE_NS)
    lag.stop()
    for _ in range(3):
        loop.turn(SAMPLE_NS)
    assert lag.histogram.snapshot(0)[0][-1] == 1
    lag.start(loop)  # type: ignore[arg-type]
    loop.turn(SAMPLE_NS)
    assert lag.histogram.snapshot(0)[0][-1] == 2, "it can be started again"
