"""Defects of snapshots, of restores, and of the clock that sessions end by."""

from typing import Final

from tests.mutants.mutant import Edit, Mutant, mutant

ORDER: Final = "tests/crash/test_call_order.py"
NAMED: Final = f"{ORDER}::test_a_snapshot_is_named_when_it_and_the_log_are_synced_and_things_are_removed_after_that"
ROWS: Final = "tests/crash/test_torture_rows.py"
TAKEN: Final = "tests/crash/test_snapshots.py"
SNAPSHOT_FILE: Final = "tests/unit/test_snapshot_file.py"
SNAPSHOT_KILLS: Final = "tests/crash/test_snapshot_kills.py"

TAKING: Final = (
    mutant(
        "do not save an entry before it changes",
        "_core/table.pyx",
        "        self.image.save(entry)\n        return REVOKED_ALREADY",
        "        return REVOKED_ALREADY",
        "tests/model/test_table_image.py",
    ),
    mutant(
        "publish a snapshot before the log is durable that far",
        "snapshots/taking.py",
        "            await self._log_durable(sequence)\n",
        "",
        NAMED,
    ),
    mutant(
        "drop segments before the snapshot has its name",
        "snapshots/taking.py",
        "            file = await self._beside(lambda: draft.publish(sequence))\n",
        "            self._log.drop_through(sequence)\n            file = await self._beside(lambda: draft.publish(sequence))\n",
        NAMED, TAKEN,
    ),
    mutant(
        "drop what the oldest snapshot kept leads on to",
        "snapshots/taking.py",
        "self._log.drop_through(kept[-1].file.sequence)",
        "self._log.drop_through(kept[0].file.sequence)",
        TAKEN,
    ),
    mutant("drop the log behind a single snapshot", "snapshots/taking.py", "SAFE_COUNT: Final = 2", "SAFE_COUNT: Final = 1", TAKEN),
    mutant(
        "say a later sequence than the image's",
        "snapshots/taking.py",
        "            writer = await self._beside(lambda: SnapshotWriter(draft.fd, header, self._about, self._new_sealer()))\n",
        "            await asyncio.sleep(0.05)\n"
        "            header = header._replace(sequence=self._applied_sequence())\n"
        "            writer = await self._beside(lambda: SnapshotWriter(draft.fd, header, self._about, self._new_sealer()))\n",
        "tests/crash/test_server_kills.py::test_no_change_is_lost_to_sigkill_while_snapshots_are_taken_and_the_log_behind_them_is_dropped",
    ),
    mutant(
        "forget that a restore begins a history",
        "snapshots/taking.py",
        "users, devices, restored=self._is_restored(sequence))",
        "users, devices)",
        TAKEN,
    ),
    Mutant(
        "name a snapshot without a sync of its contents",
        (
            Edit(
                "tokmesh/storage/snapshot_directory.py",
                "        sync(self.fd)\n        path = snapshot_path(self._directory, sequence)\n",
                "        path = snapshot_path(self._directory, sequence)\n",
            ),
            Edit("tokmesh/storage/snapshot_file.py", "        os.fsync(self._fd)\n", ""),  # the writer's own, before that
        ),
        (NAMED,),
    ),
    mutant(
        "skip the directory's sync behind a snapshot's rename",
        "storage/snapshot_directory.py",
        "        sync_directory(self._directory)\n        self._close()\n",
        "        self._close()\n",
        NAMED,
    ),
    mutant(
        "leave the draft of a snapshot that failed",
        "storage/snapshot_directory.py",
        "            with contextlib.suppress(OSError):\n                self._path.unlink()\n",
        "            pass\n",
        TAKEN, ROWS,
    ),
    mutant(
        "leave the drafts of a dead process",
        "state.py",
        "        remove_drafts(self.snapshots_directory)\n",
        "",
        SNAPSHOT_KILLS,
    ),
    mutant(
        "let retention remove the newest",
        "storage/snapshot_directory.py",
        "if rank > 0 and (rank >= count_max or time_ms < taken_after_ms)",
        "if (rank >= count_max or time_ms < taken_after_ms)",
        SNAPSHOT_FILE,
    ),
)  # fmt: skip

LOADING: Final = (
    mutant(
        "restore without looking at the file first",
        "snapshots/restoring.py",
        "        reader.verify()\n        reader.about(",
        "        reader.about(",
        TAKEN,
    ),
    mutant(
        "take a chunk without its checksum",
        "storage/snapshot_file.py",
        "if len(stored) != stored_bytes or wal.crc32c(stored) != _CRC.unpack_from(head, 16)[0]:",
        "if len(stored) != stored_bytes:",
        SNAPSHOT_FILE,
    ),
    mutant(
        "take chunks in any order",
        "storage/snapshot_file.py",
        "            chain = wal.crc32c(head[:20], chain)\n",
        "            chain = _CRC.unpack_from(head, 20)[0]\n",
        SNAPSHOT_FILE,
    ),
    mutant(
        "take a snapshot that lacks its end",
        "storage/snapshot_file.py",
        """                raise SnapshotDamaged(self.path, offset, "it ends before its end")\n""",
        "                return\n",
        SNAPSHOT_FILE,
    ),
    mutant(
        "pass over a bad snapshot silently",
        "snapshots/loading.py",
        """            logger.error("a snapshot cannot""",
        """            logger.debug("a snapshot cannot""",
        SNAPSHOT_FILE,
    ),
    mutant(
        "restore without skipping the sequence",
        "snapshots/restoring.py",
        "        await self._log.skip_to(file.sequence)\n",
        "",
        TAKEN,
    ),
    mutant(
        "give a restore the sequence of its source",
        "snapshots/restoring.py",
        "lambda: self._commit(path, self._log.last_sequence + 1)",
        "lambda: self._commit(path, loaded[0].header.sequence)",
        TAKEN,
    ),
    mutant(
        "go on writing while a restore runs",
        "snapshots/restoring.py",
        "            await self._log.suspend(restore_under_way)  # while it is only read, too: what is written now would be gone\n",
        "",
        TAKEN,
    ),
    mutant(
        "follow the wall clock",
        "_core/clock.pyx",
        "        return self._anchor_wall_ms + (monotonic_ns - self._anchor_monotonic_ns) // 1000000\n",
        "        return tm_wall_ms()\n",
        "tests/crash/test_clock_jumps.py",
    ),
)  # fmt: skip
