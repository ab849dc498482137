"""The level at run time: what the configuration says, or for a while what an administrator asked for.

Invariants: the level in force is the override's while there is one, else the configured one. An override survives neither its
time, nor a reload that brings another configured level, nor the process. Everything happens on the loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from tokmesh.telemetry.logs.levels import level_number

_logger = logging.getLogger("tokmesh.server")


class LevelState(NamedTuple):
    """level: in force; configured: by the configuration; reverts_at_ms: Unix ms when `level` becomes `configured`, or None."""

    level: str
    configured: str
    reverts_at_ms: int | None


class LogLevel:
    """Sets the root logger's level. now_ms: the clock's Unix time in ms; names are debug, info, warn, error."""

    def __init__(self, configured: str, now_ms: Callable[[], int]) -> None:
        self._configured = configured
        self._now_ms = now_ms
        self._override: str | None = None
        self._reverts_at_ms: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._apply()

    @property
    def state(self) -> LevelState:
        """As of now."""
        return LevelState(self._override or self._configured, self._configured, self._reverts_at_ms)

    def override(self, level: str, revert_after_s: int | None) -> LevelState:
        """Puts `level` in force, for `revert_after_s` seconds or until the next change; replaces what was asked before.

        ValueError for an unknown level. With a time, a running loop is needed.
        """
        level_number(level)
        self._end_override()
        self._override = level.lower()
        if revert_after_s is not None:
            self._reverts_at_ms = self._now_ms() + revert_after_s * 1000
            self._timer = asyncio.get_running_loop().call_later(revert_after_s, self._revert)
        self._apply()
        return self.state

    def configure(self, level: str) -> None:
        """Takes over the configured level of a reload; another one than before ends an override."""
        if level != self._configured:
            self._configured = level
            self._end_override()
            self._apply()

    def close(self) -> None:
        """Forgets the timer."""
        self._end_override()

    def _revert(self) -> None:
        self._end_override()
        self._apply()
        _logger.info("log level returned to the configured one", extra={"log_level": self._configured})

    def _end_override(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reverts_at_ms = self._override = None

    def _apply(self) -> None:
        logging.getLogger().setLevel(level_number(self._override or self._configured))
