"""Snapshots and restores of one node, put together from its state."""

import asyncio
from collections.abc import Callable

from tokmesh.config.keys import SnapshotSettings
from tokmesh.ids import RandomSource, UlidSource, format_ulid
from tokmesh.snapshots.restoring import Restores
from tokmesh.snapshots.taking import Snapshots
from tokmesh.state import State
from tokmesh.storage.snapshot_file import About


class Backups:
    """Runs from `start` to `stop`. software: the version that makes them; replaced: see Restores."""

    def __init__(self, state: State, rules: SnapshotSettings, software: str, replaced: Callable[[], None]) -> None:
        self._state = state
        about = About(state.node_id, software)
        ulids = UlidSource(RandomSource())
        self.snapshots = Snapshots(
            state.snapshots_directory,
            state.table,
            state.keyring,
            lambda: state.store.applied_sequence,
            state.log,
            rules,
            state.clock,
            about,
            state.new_snapshot_sealer,
        )
        self.restores = Restores(
            state.snapshots_directory,
            state.table,
            state.keyring,
            state.store,
            state.log,
            self.snapshots,
            state.clock,
            about,
            state.new_table,
            state.encryption_keys,
            state.new_snapshot_sealer,
            lambda: f"restore-{format_ulid(ulids.make(state.clock.now_ms()))}",
            replaced,
        )

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """When the state is made."""
        state = self._state
        self.snapshots.start(loop, unusable=state.snapshots_unusable, log_bytes=state.progress.bytes_read)

    async def stop(self) -> None:
        """While the log still runs."""
        await self.restores.stop()
        await self.snapshots.stop()
