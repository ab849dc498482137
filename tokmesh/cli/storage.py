"""`tokmesh storage rekey`."""

import argparse
import os
import sys

from tokmesh.cli.config import load_options
from tokmesh.errors import EX_OK


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Writes the log of a stopped server anew, as its settings say. Raises ConfigError, ApiError."""
    from tokmesh.config import ConfigError, Problem
    from tokmesh.host import data_directory, process
    from tokmesh.host.encryption_keys import read_keys
    from tokmesh.snapshots.offline import rekey as rekey_snapshots
    from tokmesh.storage.rekey import rekey
    from tokmesh.storage.segment import LOG_DIRECTORY, list_segments, lock_directory
    from tokmesh.storage.segment_keys import SegmentKeys
    from tokmesh.storage.snapshot_directory import SNAPSHOT_DIRECTORY

    storage = load_options(options, settings).settings.storage
    directory = storage.dir / LOG_DIRECTORY
    if not directory.is_dir() or not list_segments(directory):
        raise ConfigError([Problem("TM-CFG-1003", "storage.dir", str(storage.dir), "there is no log of a server in it")])
    data_directory.prepare(storage.dir)
    process.harden()  # from here on there are keys in memory
    keys = SegmentKeys(read_keys(storage.encryption), storage.encryption.enabled)
    lock_fd = lock_directory(directory)
    try:
        report = rekey(directory, keys)
        snapshots = rekey_snapshots(storage.dir / SNAPSHOT_DIRECTORY, keys.keys, keys.sealing)
        form = f"encrypted under key {report.key_id.hex()}" if report.key_id else "not encrypted"
        if snapshots:
            print(f"{snapshots} snapshots are written anew: {form}")
        if report.segments:
            print(f"{report.segments} log segments with {report.records} records are written anew: {form}")
        elif not snapshots:
            print(f"nothing to do: every log segment and snapshot is {form}")
        for path in report.broken if options.remove_broken else ():
            path.unlink()
            print(f"removed {path}")
    finally:
        os.close(lock_fd)
    if report.broken and not options.remove_broken:
        for path in report.broken:
            print(f"left as it was: {path}, a copy of a torn tail; --remove-broken removes it", file=sys.stderr)
    return EX_OK
