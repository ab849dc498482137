"""Defects of the log: of commits, of its files, of reading it back, of its encryption."""

from typing import Final

from tests.mutants.mutant import Edit, Mutant, mutant

ORDER: Final = "tests/crash/test_call_order.py"
SYNCED_LOG: Final = f"{ORDER}::test_the_log_is_synced_with_its_names_before_it_answers"
RECOVERY: Final = "tests/unit/test_wal_recovery.py"
CODEC: Final = "tests/unit/test_wal_codec.py"
FAILING: Final = "tests/crash/test_failing_disk.py"
FULL: Final = "tests/crash/test_full_disk.py"
ROWS: Final = "tests/crash/test_torture_rows.py"
TAKEN: Final = "tests/crash/test_snapshots.py"
SNAPSHOT_FILE: Final = "tests/unit/test_snapshot_file.py"
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
    mutant("skip fdatasync", "_core/tail.pyx", "status = sync_data(self.fd)\n", "status = 0\n", SYNCED_LOG, FAILING),
    mutant(
        "claim as durable what is only being written",
        "_core/tail.pyx",
        "header.durable_sequence = self.durable_sequence\n",
        "header.durable_sequence = self.sequence_due - 1 + record_count\n",
        RECOVERY, "tests/unit/test_commits.py", "tests/crash/test_kills.py",
    ),
    mutant(
        "apply and answer before the commit",
        "log/settling.py",
        "        decided = self._commits.acknowledge()\n",
        "        self._commits.acknowledge()\n        decided = self._settled + self.waiting\n",
        FAILING, "tests/unit/test_wal_file_log.py",
    ),
    mutant(
        "acknowledge after a failed sync, where syncs are at intervals",
        "log/settling.py",
        "if self._apply_failed or (self._at_intervals and self._writer.failure is not None):",
        "if self._apply_failed:",
        "tests/unit/test_wal_file_log.py",
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
        "tests/crash/test_server_storage.py::test_a_disk_that_fails_at_the_start_is_told_in_one_line",
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
        WAL_BASE, TAKEN,
    ),
)  # fmt: skip

SEALING: Final = (
    mutant(
        "skip the tag check",
        "storage/encryption.py",
        "            return self._cipher.decrypt(_nonce(counter), sealed, aad)\n",
        # Counter mode: encrypting the ciphertext gives the text back.
        "            return self._cipher.encrypt(_nonce(counter), sealed[:-16], aad)[:-16]\n",
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
