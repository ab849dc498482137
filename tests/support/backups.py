"""A node that serves, as far as its state, its log and its backups go, with a snapshot of another node to restore."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.support.config import load_settings
from tests.support.snapshots import Made, write_snapshot
from tokmesh._core.clock import Clock
from tokmesh.backups import Backups
from tokmesh.log.record import KeyCreated
from tokmesh.state import State

LIFE_S_MAX: Final = 60.0


class BackedUp:
    """backups: of a node with one API key in its log; file: the other node's. interval_ms: of snapshots."""

    def __init__(self, directory: Path, interval_ms: int) -> None:
        folder = directory / "other"
        folder.mkdir()
        self.file = write_snapshot(folder, Made(None, 20), 9)
        storage = load_settings({"storage.dir": str(directory / "data")})
        self.state = State(storage, Clock(), "tmnd-backed-up")
        rules = replace(storage.storage.snapshot, interval_ms=interval_ms)
        self.backups = Backups(self.state, replace(storage.storage, snapshot=rules), "1", lambda: None, in_cluster=False)

    async def live(self, body: Callable[["BackedUp"], Awaitable[None]]) -> None:
        """From its start over `body` to its end."""
        loop = asyncio.get_running_loop()
        self.state.replay()
        self.state.log.start(loop, self.state.store.apply)
        try:
            await self.state.log.propose(KeyCreated(1, b"k" * 16, "admin", "", (), 0.0, 0, "$argon2id$", bytes(16), bytes(32)))
            self.backups.start(loop)
            await body(self)
            await self.backups.stop()
        finally:
            await self.state.log.close()


def run_backups(directory: Path, body: Callable[[BackedUp], Awaitable[None]], *, interval_ms: int = 3_600_000) -> None:
    """Runs `body` with such a node."""
    asyncio.run(asyncio.wait_for(BackedUp(directory, interval_ms).live(body), LIFE_S_MAX))
