"""The configuration of a process that runs: what is in force and why, trying another one, taking over a changed one.

SIGHUP, the administration routes and `tokmesh config` all come here or to `loading.py`, so that they cannot disagree.

Invariants: a configuration with any problem changes nothing; keys that are not reloadable keep value and source until a
restart. Files are read and YAML is parsed in a thread of its own, one after the other, since a megabyte of it takes seconds; at
most PENDING_MAX wait. What is in force is changed on the loop's thread only, in the order in which it was read.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from tokmesh.config.keys import Settings, value_of, with_values
from tokmesh.config.loading import ConfigError, Loaded, Problem, Shown, changed_keys, shown
from tokmesh.errors import ApiError

PENDING_MAX: Final = 4

_logger = logging.getLogger("tokmesh.server")


class Outcome(NamedTuple):
    """What another configuration changes: keys applied (or that would be), keys that need a restart, all that is wrong with it."""

    applied: list[str]
    needs_restart: list[str]
    problems: tuple[Problem, ...] = ()


class LiveConfig:
    """loaded: of the start. load: reads all sources again, with the given text in place of the file's, where not None; raises
    ConfigError. apply: called with the settings that are in force from now on."""

    def __init__(self, loaded: Loaded, load: Callable[[bytes | None], Loaded], apply: Callable[[Settings], None]) -> None:
        self.settings = loaded.settings
        self.config_file = loaded.config_file
        self.needs_restart: list[str] = []  # since the latest reload
        self._sources = dict(loaded.sources)
        self._load = load
        self._apply = apply
        self._pending = 0
        self._reader = ThreadPoolExecutor(1, "tokmesh-config")

    def shown(self) -> list[Shown]:
        """Every key with the value in force."""
        return shown(self.settings, self._sources)

    async def validate(self, text: bytes) -> Outcome:
        """What a reload would do if the file held `text`; changes nothing. Raises TM-ADMIN-4291."""
        read = await self._read(text)
        return read if isinstance(read, Outcome) else self._compared(read)

    async def reload(self) -> Outcome:
        """Reads the sources again and takes over what can be. Raises TM-ADMIN-4291."""
        read = await self._read(None)
        if isinstance(read, Outcome):
            for problem in read.problems:
                _logger.error("configuration not reloaded", extra={"problem": str(problem)})
            return read
        outcome = self._compared(read)
        applied, _ = changed_keys(self.settings, read.settings)
        self.settings = with_values(self.settings, {key.name: value_of(read.settings, key) for key in applied})
        self._sources |= {name: read.sources[name] for name in read.sources if name not in outcome.needs_restart}
        self.needs_restart = outcome.needs_restart
        self._apply(self.settings)
        if outcome.needs_restart:
            _logger.warning("changes need a restart to take effect", extra={"keys": outcome.needs_restart})
        _logger.info("configuration reloaded", extra={"applied": outcome.applied})
        return outcome

    def close(self) -> None:
        """Ends the thread."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _compared(self, read: Loaded) -> Outcome:
        applied, waiting = changed_keys(self.settings, read.settings)
        return Outcome(sorted(key.name for key in applied), [key.name for key in waiting])

    async def _read(self, text: bytes | None) -> Loaded | Outcome:
        if self._pending >= PENDING_MAX:
            raise ApiError("TM-ADMIN-4291", retry_after_s=1)
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._load, text)
        except ConfigError as error:
            return Outcome([], [], error.problems)
        finally:
            self._pending -= 1
