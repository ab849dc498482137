"""The defects, each a small edit of the sources, with the tests that must fail for it.

A defect is worth its place when it breaks a promise of ARCHITECTURE.md's; one that no test sees is a missing test. Every text that
is replaced stands exactly once in its file (test_catalogue.py).
"""

from typing import Final

from tests.mutants.mutant import Edit, Mutant, mutant

ORDER: Final = "tests/crash/test_call_order.py"
SYNCED_LOG: Final = f"{ORDER}::test_the_log_is_synced_with_its_names_before_it_answers"
NAMED: Final = f"{ORDER}::test_a_snapshot_is_named_when_it_and_the_log_are_synced_and_things_are_removed_after_that"
RECOVERY: Final = "tests/unit/test_wal_recovery.py"
CODEC: Final = "tests/unit/test_wal_codec.py"
FAILING: Final = "tests/crash/test_failing_disk.py"
FULL: Final = "tests/crash/test_full_disk.py"
ROWS: Final = "tests/crash/test_torture_rows.py"
SNAPSHOTS: Final = "tests/crash/test_snapshots.py"
SNAPSHOT_FILE: Final = "tests/unit/test_snapshot_file.py"
SNAPSHOT_KILLS: Final = "tests/crash/test_snapshot_kills.py"
WAL_BASE: Final = "tests/unit/test_wal_base.py"
ENCRYPTED: Final = "tests/unit/test_wal_encrypted.py"

COMMITS: Final = (
    mutant(
        "acknowledge before fdatasync",
        "_core/commits.pyx",
        """            if sync:
                self.error_number = tail.make_durable()
                if self.error_number != 0:
                    return STOP_SYNC
            self._decide(count)
""",
        """            self._decide(count)
            if sync:
                self.error_number = tail.make_durable()
                if self.error_number != 0:
                    return STOP_SYNC
""",
        SYNCED_LOG, "tests/unit/test_commits.py",
    ),
    mutant(
        "try a failed fdatasync again",
        "_core/commits.pyx",
        "                if self.error_number != 0:\n                    return STOP_SYNC\n",
        "                if self.error_number != 0:\n                    self.error_number = tail.make_durable()\n",
        FAILING,
    ),
    mutant("skip fdatasync", "_core/tail.pyx", "        status = sync_data(self.fd)\n", "        status = 0\n", SYNCED_LOG, FAILING),
    mutant(
        "claim as durable what is only being written",
        "_core/tail.pyx",
        "header.durable_sequence = self.durable_sequence\n",
        "header.durable_sequence = self.sequence_due - 1 + record_count\n",
        RECOVERY, "tests/unit/test_commits.py", "tests/crash/test_kills.py",
    ),
    mutant(
        "apply and answer before the commit",
        "log/file_log.py",
        "        decided = self._commits.acknowledge()\n",
        "        self._commits.acknowledge()\n        decided = self._settled + len(self._waiting)\n",
        FAILING, "tests/unit/test_wal_file_log.py",
    ),
    mutant(
        "acknowledge after a failed sync, where syncs are at intervals",
        "log/file_log.py",
        "if self._apply_failed or (self._interval_s and self._writer.failure is not None):",
        "if self._apply_failed:",
        FAILING,
    ),
    mutant(
        "apply a record twice",
        "store.py",
        "        if sequence <= self.applied_sequence:\n            return None\n",
        "",
        "tests/unit/test_store.py",
    ),
)  # fmt: skip

LOG_FILES: Final = (
    mutant(
        "skip the directory's sync behind a segment's rename",
        "storage/segment.py",
        "    os.rename(directory / SPARE_NAME, path)\n    sync(directory_fd)\n",
        "    os.rename(directory / SPARE_NAME, path)\n",
        SYNCED_LOG,
    ),
    mutant(
        "rename a segment before its header is synced",
        "storage/segment.py",
        "    sync(fd)\n    path = segment_path(directory, first_sequence)\n    os.rename(directory / SPARE_NAME, path)\n",
        "    path = segment_path(directory, first_sequence)\n    os.rename(directory / SPARE_NAME, path)\n    sync(fd)\n",
        SYNCED_LOG,
    ),
    mutant(
        "let two processes have one log",
        "storage/segment.py",
        "        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        "tests/unit/test_wal_file_log.py", ROWS,
    ),
    mutant(
        "drop a segment that still leads on",
        "storage/segment.py",
        "if following <= sequence + 1]",
        "if following <= sequence + 2]",
        WAL_BASE,
    ),
    mutant(
        "drop the log's last segment as well",
        "storage/segment.py",
        "    covered = [path for (_, path), (following, _) in itertools.pairwise(segments) if following <= sequence + 1]\n",
        "    covered = [path for first, path in segments if first <= sequence]\n",
        WAL_BASE,
    ),
    mutant(
        "keep no reserve for revocations",
        "log/appender.py",
        "        return limit - _reserve_bytes(self._segment.header.size_bytes)\n",
        "        return limit\n",
        FULL,
    ),
    mutant(
        "leave what did not fit on a full disk",
        "log/appender.py",
        "            if wal.write_at(self.fd, bytes(size), self.offset) not in NO_ROOM | {0}:\n",
        "            if size < 0:\n",
        FAILING, ROWS,
    ),
)  # fmt: skip

READING: Final = (
    mutant(
        "drop the chain check",
        "_core/wal.pyx",
        "    if header.first_sequence != sequence_due or header.chain != tm_crc32c(chain, start, 44):\n",
        "    if header.first_sequence != sequence_due:\n",
        CODEC, RECOVERY,
    ),
    mutant(
        "take a payload for whole without its checksum",
        "_core/wal.pyx",
        "    return header.payload_crc == tm_crc32c(0, start + FRAME_HEADER_SIZE, header.payload_bytes)\n",
        "    return True\n",
        CODEC, RECOVERY,
    ),
    mutant(
        "cut a torn tail without the copy",
        "storage/recovery.py",
        "    if torn:\n        broken_path = _keep_broken(segment, data)\n",
        "",
        RECOVERY,
    ),
    mutant(
        "take damage in the middle of the last segment for a torn tail",
        "storage/scan.py",
        "    if later >= 0:\n",
        "    if later < 0 and later > 0:\n",
        RECOVERY,
    ),
    mutant(
        "answer from what was read and not synced",
        "storage/recovery.py",
        "        os.fdatasync(fd)\n",
        "",
        FAILING,
    ),
    mutant(
        "start from a snapshot without the log that leads on from it",
        "storage/recovery.py",
        "    if segments and segments[0][0] > base.sequence + 1:\n",
        "    if segments and base.sequence < 0:\n",
        WAL_BASE,
    ),
    mutant(
        "apply what a restore took back",
        "storage/recovery.py",
        "        segments = [segment for segment in segments if segment[0] > base.sequence]\n",
        "        segments = segments[-1:]\n",
        WAL_BASE, SNAPSHOTS,
    ),
)  # fmt: skip

SEALING: Final = (
    mutant(
        "skip the tag check",
        "storage/encryption.py",
        "            return self._cipher.decrypt(_nonce(counter), sealed, aad)\n",
        # Counter mode: encrypting the ciphertext gives the text back.
        "            return self._cipher.encrypt(_nonce(counter), sealed[:-TAG_BYTES], aad)[:-TAG_BYTES]\n",
        "tests/unit/test_encryption.py", ENCRYPTED,
    ),
    Mutant(
        "use one nonce for every frame",
        (
            Edit("tokmesh/_core/tail.pyx", "        self._nonce_counter += 1\n", "        self._nonce_counter = 1\n"),
            Edit(
                "tokmesh/storage/encryption.py",
                """        assert self._counter_due <= counter <= COUNTER_MAX, "a nonce must not be used twice"\n""",
                "",
            ),
        ),
        (ENCRYPTED,),
    ),
    mutant(
        "go on in an encrypted segment of another process",
        "storage/recovery.py",
        "    if torn or keys.sealing or header.key_id:\n",
        "    if torn:\n",
        ENCRYPTED,
    ),
    Mutant(
        "use one nonce for every chunk of a snapshot",
        (
            Edit(
                "tokmesh/storage/snapshot_file.py",
                "self._sealer.seal(self._number, self._head + head, stored)",
                "self._sealer.seal(0, self._head + head, stored)",
            ),
            Edit(
                "tokmesh/storage/snapshot_file.py",
                "opener.open(chunk.number, self._head + chunk.head, stored)",
                "opener.open(0, self._head + chunk.head, stored)",
            ),
            Edit(
                "tokmesh/storage/encryption.py",
                """        assert self._counter_due <= counter <= COUNTER_MAX, "a nonce must not be used twice"\n""",
                "",
            ),
        ),
        (SNAPSHOT_FILE, "tests/unit/test_encryption.py"),
    ),
)  # fmt: skip

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
        NAMED, SNAPSHOTS,
    ),
    mutant(
        "drop what the oldest snapshot kept leads on to",
        "snapshots/taking.py",
        "self._log.drop_through(kept[-1].file.sequence)",
        "self._log.drop_through(kept[0].file.sequence)",
        SNAPSHOTS,
    ),
    mutant("drop the log behind a single snapshot", "snapshots/taking.py", "SAFE_COUNT: Final = 2", "SAFE_COUNT: Final = 1", SNAPSHOTS),
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
        SNAPSHOTS,
    ),
    mutant(
        "rename a snapshot before it is synced",
        "storage/snapshot_directory.py",
        "        sync(self.fd)\n        path = snapshot_path(self._directory, sequence)\n        os.rename(self._path, path)\n",
        "        path = snapshot_path(self._directory, sequence)\n        os.rename(self._path, path)\n        sync(self.fd)\n",
        NAMED,
    ),
    mutant(
        "skip the directory's sync behind a snapshot's rename",
        "storage/snapshot_directory.py",
        "            sync(directory_fd)\n        finally:\n            os.close(directory_fd)\n        self._close()\n",
        "            pass\n        finally:\n            os.close(directory_fd)\n        self._close()\n",
        NAMED,
    ),
    mutant(
        "leave the draft of a snapshot that failed",
        "storage/snapshot_directory.py",
        "            with contextlib.suppress(OSError):\n                self._path.unlink()\n",
        "            pass\n",
        SNAPSHOTS, ROWS,
    ),
    mutant("leave the drafts of a dead process", "state.py", "        remove_drafts(self.snapshots_directory)\n", "", SNAPSHOT_KILLS),
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
        SNAPSHOTS,
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
        """            logger.error("a snapshot cannot be used; the one before it is tried", extra={"snapshot": file.id, "reason": str(error)})\n""",
        "",
        SNAPSHOT_FILE,
    ),
    mutant(
        "restore without skipping the sequence",
        "snapshots/restoring.py",
        "        await self._log.skip_to(file.sequence)\n",
        "",
        SNAPSHOTS,
    ),
    mutant(
        "give a restore the sequence of its source",
        "snapshots/restoring.py",
        "lambda: self._commit(path, self._log.last_sequence + 1)",
        "lambda: self._commit(path, loaded[0].header.sequence)",
        SNAPSHOTS,
    ),
    mutant(
        "go on writing while a restore runs",
        "snapshots/restoring.py",
        "            await self._log.suspend(_refusal)  # also while it is only read: what is written now would be gone soon\n",
        "",
        SNAPSHOTS,
    ),
    mutant(
        "follow the wall clock",
        "_core/clock.pyx",
        "        return self._anchor_wall_ms + (monotonic_ns - self._anchor_monotonic_ns) // 1000000\n",
        "        return tm_wall_ms()\n",
        "tests/crash/test_clock_jumps.py",
    ),
)  # fmt: skip

MUTANTS: Final = (*COMMITS, *LOG_FILES, *READING, *SEALING, *TAKING, *LOADING)
