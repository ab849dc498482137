"""The watchdog: a held loop is told once, with the stack that holds it, and once more when it goes on."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import uvloop

from tokmesh.telemetry.logs.formatter import JsonFormatter
from tokmesh.telemetry.loop_lag import LoopLag
from tokmesh.telemetry.watchdog import LOOK_SECONDS_MAX, Watchdog

MS = 1_000_000
THRESHOLD_MS = 1000
LOOK_MS = int(LOOK_SECONDS_MAX * 1000)


class Told(logging.Handler):
    """The records of the watchdog's logger; `begun` is set with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.begun = threading.Event()
        self.ended = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        (self.begun if len(self.records) == 1 else self.ended).set()

    def messages(self) -> list[tuple[str, float]]:
        return [(record.getMessage(), record.__dict__["held_seconds"]) for record in self.records]


@pytest.fixture
def told() -> Iterator[Told]:
    handler = Told()
    logger = logging.getLogger("tokmesh.watchdog")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)  # whatever level the root was left at
    yield handler
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    logger.removeHandler(handler)


class World:
    """A watchdog with clocks and a loop that are moved by hand, in milliseconds."""

    def __init__(self) -> None:
        self.now_ms = 10_000
        self.cpu_ms = 0
        self.lag = SimpleNamespace(due_ns=self.now_ms * MS, last_late=(0, 0))
        self.watchdog = Watchdog(
            self.lag,  # type: ignore[arg-type]
            THRESHOLD_MS / 1000,
            monotonic_ns=lambda: self.now_ms * MS,
            cpu_time=lambda: self.cpu_ms / 1000,
        )

    def pass_time(self, ms: int, *, running: bool = True) -> None:
        self.now_ms += ms
        self.cpu_ms += ms if running else 0
        self.watchdog.look()

    def sample(self) -> None:
        """The loop runs the timer that was due, and sets the next."""
        self.lag.last_late = (self.lag.due_ns, self.now_ms * MS - self.lag.due_ns)
        self.lag.due_ns = (self.now_ms + 100) * MS


def test_the_threshold_is_exact(told: Told) -> None:
    world = World()
    for _ in range(3):
        world.pass_time(LOOK_MS)
    world.pass_time(LOOK_MS - 1)
    assert told.messages() == [] and world.watchdog.stalls == 0
    world.pass_time(1)
    assert told.messages() == [("the event loop is held", 1.0)] and world.watchdog.stalls == 1


def test_a_stall_is_told_once_and_its_end_with_its_duration(told: Told) -> None:
    world = World()
    for _ in range(20):
        world.pass_time(LOOK_MS)
    world.now_ms += 7
    world.sample()
    world.pass_time(50)
    world.pass_time(50)
    assert told.messages() == [("the event loop is held", 1.0), ("the event loop goes on", 5.007)]
    assert world.watchdog.stalls == 1
    for _ in range(4):
        world.pass_time(LOOK_MS)
    world.pass_time(LOOK_MS)
    assert world.watchdog.stalls == 2, "a second stall is another"


def test_a_loop_that_is_served_late_but_below_the_threshold_is_not_told(told: Told) -> None:
    world = World()
    for _ in range(100):
        world.pass_time(LOOK_MS)
        world.pass_time(LOOK_MS)
        world.sample()
    assert told.messages() == []


def test_a_process_that_was_stopped_was_not_stalled(told: Told) -> None:
    world = World()
    world.pass_time(60_000, running=False)
    assert told.messages() == [] and world.watchdog.stalls == 0
    world.sample()
    world.pass_time(LOOK_MS)
    assert told.messages() == []


def test_a_loop_that_held_the_interpreter_too_is_told_when_it_lets_go(told: Told) -> None:
    world = World()
    world.pass_time(60_000, running=True)
    assert told.messages() == [("the event loop is held", 60.0)]


def test_a_loop_that_has_ended_is_not_held(told: Told) -> None:
    world = World()
    world.lag.due_ns = 0
    for _ in range(20):
        world.pass_time(LOOK_MS)
    assert told.messages() == []


def test_the_stack_that_holds_a_real_loop_is_in_the_log(told: Told) -> None:
    lag = LoopLag()
    watchdog = Watchdog(lag, 0.2)

    def holds_the_loop() -> None:
        assert told.begun.wait(30), "the watchdog says nothing"

    async def run() -> None:
        loop = asyncio.get_running_loop()
        lag.start(loop)
        watchdog.start()
        loop.call_soon(holds_the_loop)
        for _ in range(300):
            await asyncio.sleep(0.1)
            if told.ended.is_set():
                break
        watchdog.stop()
        lag.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    (_, first), (_, second) = told.messages()[:2]
    assert [message for message, _ in told.messages()[:2]] == ["the event loop is held", "the event loop goes on"]
    assert 0.2 <= first <= second
    line = JsonFormatter().format(told.records[0])
    assert '"stack":' in line and "in holds_the_loop" in line
    assert watchdog.stalls == [message for message, _ in told.messages()].count("the event loop is held")
    assert watchdog._thread is not None and not watchdog._thread.is_alive()


def test_one_that_was_not_started_can_be_stopped() -> None:
    Watchdog(LoopLag(), 1.0).stop()
