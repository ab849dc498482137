"""The level at run time: an override returns by itself, a second one replaces it, a reload is coherent with it."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from tokmesh.telemetry.logs.level import LogLevel


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    level = logger.level
    yield logger
    logger.setLevel(level)


def now_ms() -> int:
    return 1_000_000


def test_the_configured_level_is_in_force_at_first(root: logging.Logger) -> None:
    assert LogLevel("warn", now_ms).state == ("warn", "warn", None)
    assert root.level == logging.WARNING


def test_an_override_holds_until_the_next(root: logging.Logger) -> None:
    level = LogLevel("warn", now_ms)
    assert level.override("DEBUG", None) == ("debug", "warn", None)
    assert root.level == logging.DEBUG
    assert level.override("error", None) == ("error", "warn", None)
    assert root.level == logging.ERROR


def test_an_unknown_level_changes_nothing(root: logging.Logger) -> None:
    level = LogLevel("warn", now_ms)
    level.override("debug", None)
    with pytest.raises(ValueError, match="unknown log level"):
        level.override("loud", None)
    assert level.state.level == "debug" and root.level == logging.DEBUG


def test_an_override_returns_after_its_time_and_a_second_one_replaces_its_timer(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        level = LogLevel("info", now_ms)
        assert level.override("debug", 60).reverts_at_ms == 1_060_000
        first = level._timer
        assert first is not None and loop.time() + 59 < first.when() < loop.time() + 61
        assert level.override("error", 120).reverts_at_ms == 1_120_000
        assert first.cancelled()
        second = level._timer
        assert second is not None and not second.cancelled()
        second._run()  # the time has come
        assert level.state == ("info", "info", None) and root.level == logging.INFO
        level.override("debug", 60)
        level.override("debug", None)
        assert level.state == ("debug", "info", None), "asked for again without a time: stays"

    asyncio.run(play())


def test_a_reload_that_brings_another_level_ends_an_override_and_another_reload_does_not(root: logging.Logger) -> None:
    async def play() -> None:
        level = LogLevel("info", now_ms)
        level.override("debug", 60)
        level.configure("info")
        assert level.state.level == "debug" and level.state.reverts_at_ms == 1_060_000, "the level in the file is what it was"
        level.configure("error")
        ended = level.state
        assert ended == ("error", "error", None) and root.level == logging.ERROR
        level.override("debug", 60)
        timer = level._timer
        level.close()
        assert timer is not None and timer.cancelled()

    asyncio.run(play())
