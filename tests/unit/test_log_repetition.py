"""Repeated lines: a few get out, the rest become one line with their number; nothing is lost from the count, memory is bounded."""

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokmesh.telemetry.logs import JsonLinesHandler, configure_logging, reset_logging
from tokmesh.telemetry.logs import repetition as module
from tokmesh.telemetry.logs.repetition import Repetition


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * 1_000_000


def record(message: str = "disk %s is slow", *args: object, level: int = logging.WARNING, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "tokmesh.t", "levelno": level, "msg": message, "args": args, **extra})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repetition(clock: Clock) -> Repetition:
    made = Repetition(clock)
    made.lines_max, made.interval_ms = 3, 1000
    return made


def told(records: list[logging.LogRecord]) -> list[tuple[str, int]]:
    return [(each.getMessage(), each.__dict__["repeated"]) for each in records]


def test_the_first_of_a_window_pass_and_the_rest_are_counted(repetition: Repetition, clock: Clock) -> None:
    assert [repetition.filter(record("disk %s is slow", number)) for number in range(5)] == [True, True, True, False, False]
    assert repetition.take() == [] and repetition.suppressed == 2
    clock.pass_ms(999)
    assert repetition.take() == [] and repetition.due_in_s() == pytest.approx(0.001)
    clock.pass_ms(1)
    [line] = repetition.take()
    assert (line.getMessage(), line.__dict__["repeated"], line.levelno, line.name) == ("disk %s is slow", 2, 30, "tokmesh.t")
    assert repetition.due_in_s() is None
    assert repetition.filter(record()) is True, "a new window"


def test_exactly_the_limit_is_no_repetition(repetition: Repetition, clock: Clock) -> None:
    assert all(repetition.filter(record()) for _ in range(3))
    clock.pass_ms(1000)
    assert repetition.take() == [] and repetition.suppressed == 0


def test_another_logger_level_template_or_exception_is_another_line(repetition: Repetition, clock: Clock) -> None:
    kinds: list[dict[str, Any]] = [
        {}, {"level": logging.ERROR}, {"message": "other %s"}, {"name": "tokmesh.u"},
        {"exc_info": (ValueError, ValueError("x"), None)}, {"exc_info": (KeyError, KeyError("x"), None)},
    ]  # fmt: skip
    for kind in kinds:
        assert [repetition.filter(record(**kind)) for _ in range(4)] == [True, True, True, False]
    clock.pass_ms(1000)
    assert [count for _, count in told(repetition.take())] == [1] * len(kinds)


def test_audit_lines_and_counts_themselves_always_pass(repetition: Repetition) -> None:
    assert all(repetition.filter(record(audit=True)) for _ in range(100))
    assert all(repetition.filter(record(repeated=7)) for _ in range(100))
    assert repetition.due_in_s() is None


def test_no_limit_means_every_line(repetition: Repetition) -> None:
    repetition.lines_max = 0
    assert all(repetition.filter(record()) for _ in range(100))


@pytest.mark.parametrize("beyond", [0, 1])
def test_memory_is_bounded_by_letting_further_templates_pass(repetition: Repetition, clock: Clock, beyond: int) -> None:
    for number in range(module.KEYS_MAX - 1 + beyond):
        assert repetition.filter(record(f"template {number}"))
    passed = [repetition.filter(record("the last one" + "x" * 10_000)) for _ in range(4)]
    assert passed == [True, True, True, beyond == 1]
    clock.pass_ms(1000)
    lines = repetition.take()
    assert len(lines) == 1 - beyond
    assert all(len(line.getMessage()) == module.TEMPLATE_CHARS_MAX for line in lines)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[tuple[Path, JsonLinesHandler]]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    path = tmp_path / "out"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    made = configure_logging("info", time.monotonic_ns, fd=fd)
    made.repetition.lines_max = 2
    yield path, made
    reset_logging()
    os.close(fd)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_count_is_written_when_the_window_ends_though_nothing_else_is_logged(output: tuple[Path, JsonLinesHandler]) -> None:
    path, made = output
    made.repetition.interval_ms = 300
    for number in range(10):
        logging.getLogger("tokmesh.t").error("again %d", number)
    deadline = time.monotonic() + 20
    while len(lines_of(path)) < 3:
        assert time.monotonic() < deadline, lines_of(path)
        time.sleep(0.01)
    *first, last = lines_of(path)
    assert [line["message"] for line in first] == ["again 0", "again 1"]
    assert (last["level"], last["message"], last["repeated"]) == ("ERROR", "again %d", 8)
    assert made.stats.suppressed == 8 and made.stats.lines()["ERROR"] == 3


def test_the_count_is_not_lost_at_the_end_of_the_process(output: tuple[Path, JsonLinesHandler]) -> None:
    path, made = output
    made.repetition.interval_ms = 3_600_000
    for _ in range(5):
        logging.getLogger("tokmesh.t").info("again")
    reset_logging()
    assert lines_of(path)[-1]["repeated"] == 3
