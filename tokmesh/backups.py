"""Snapshots and restores of one node, put together from its state."""

import asyncio
from collections.abc import Callable

from tokmesh.config.keys import StorageSettings
from tokmesh.ids import RandomSource, UlidSource, format_ulid
from tokmesh.snapshots.restoring import Restores
from tokmesh.snapshots.taking import Snapshots
from tokmesh.state import State
from tokmesh.storage.snapshot_file import About


class Backups:
    """Runs from `start` to `stop`. settings: of storage; software: the version that makes them; replaced: see Restores;
    in_cluster: this node is one of many, whose stream no restore of one of them may contradict."""

    def __init__(
        self, state: State, settings: StorageSettings, software: str, replaced: Callable[[], None], in_cluster: bool
    ) -> None:
        self._state = state
        self.in_cluster = in_cluster
        self.directory = state.snapshots_directory
        self.upload_bytes_max = settings.backup.max_upload_size_bytes
        about = About(state.node_id, software)
        ulids = UlidSource(RandomSource())
        self.snapshots = Snapshots(
            directory=state.snapshots_directory,
            table=state.table,
            keyring=state.keyring,
            following=state.store.following,
            applied_sequence=lambda: state.store.applied_sequence,
            log=state.log,
            rules=settings.snapshot,
            clock=state.clock,
            about=about,
            new_sealer=state.new_snapshot_sealer,
        )
        self.restores = Restores(
            directory=state.snapshots_directory,
            table=state.table,
            keyring=state.keyring,
            store=state.store,
            log=state.log,
            snapshots=self.snapshots,
            clock=state.clock,
            about=about,
            new_table=state.new_table,
            keys=state.encryption_keys,
            new_sealer=state.new_snapshot_sealer,
            new_id=lambda: f"restore-{format_ulid(ulids.make(state.clock.now_ms()))}",
            replaced=replaced,
        )

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """When the state is made."""
        state = self._state
        self.snapshots.start(loop, unusable=state.snapshots_unusable, log_bytes=state.progress.bytes_applied)

    async def stop(self) -> None:
        """While the log still runs."""
        await self.restores.stop()
        await self.snapshots.stop()
