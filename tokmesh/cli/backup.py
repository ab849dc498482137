"""`tokmesh backup create|list|fetch|verify|restore`: snapshots of the server on this host, or of its directory when it is stopped.

While a server runs it is asked, through its administration socket; a stopped one's directory is worked on here. What a restore
replaces is kept, as files: nothing is removed.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokmesh import __version__
from tokmesh.cli.config import load_options
from tokmesh.cli.local import call, download, path_segment, upload
from tokmesh.cli.progress import Bar
from tokmesh.cli.table import shown_time
from tokmesh.config import Settings
from tokmesh.errors import EX_DATAERR, EX_FAILURE, EX_OK, ApiError

if TYPE_CHECKING:
    from tokmesh.snapshots.offline import Restorable

SNAPSHOTS: Final = "/admin/v1/backups/snapshots"
RESTORES: Final = "/admin/v1/backups/restores"
UPLOADS: Final = "/admin/v1/backups/uploads"
POLL_S: Final = 0.2


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Runs one action. Raises ApiError or ConfigError."""
    loaded = load_options(options, settings).settings
    actions: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "create": _create, "list": _list, "fetch": _fetch, "verify": _verify, "restore": _restore,
    }  # fmt: skip
    return actions[options.action](options, loaded)


def _create(options: argparse.Namespace, settings: Settings) -> int:
    with Bar("taking a snapshot"):
        taken = call(settings.storage.dir, "POST", SNAPSHOTS, {}, timeout_s=None)
    print(json.dumps(taken) if options.json else _told(taken))
    return EX_OK


def _list(options: argparse.Namespace, settings: Settings) -> int:
    items = call(settings.storage.dir, "GET", SNAPSHOTS)["items"]
    if options.json:
        print(json.dumps(items))
    else:
        for item in items:
            print(_told(item))
    return EX_OK


def _told(item: dict[str, Any]) -> str:
    marks = [mark for mark in ("encrypted", "restored") if item[mark]]
    counts = (f"{item['sessions']} sessions", f"{item['size_bytes']} bytes")
    return "  ".join([item["id"], shown_time(item["taken_at"]), *counts, *marks])


def _fetch(options: argparse.Namespace, settings: Settings) -> int:
    target = Path(options.file)
    snapshot = path_segment(options.snapshot_id, "snapshot_id", "must be the id of a snapshot, as `tokmesh backup list` shows it")
    with Bar(f"fetching {options.snapshot_id}") as bar:
        download(settings.storage.dir, f"{SNAPSHOTS}/{snapshot}/file", target, bar.tell)
    print(f"{options.snapshot_id} is in {target}")
    return EX_OK


def _verify(options: argparse.Namespace, settings: Settings) -> int:
    """Reads files through as a restore would; exit code 65 when one cannot be restored."""
    from tokmesh._core.table import Table
    from tokmesh.host import process
    from tokmesh.host.encryption_keys import read_keys
    from tokmesh.snapshots import offline
    from tokmesh.storage.recovery import Progress
    from tokmesh.storage.snapshot_file import SnapshotDamaged

    process.harden()  # from here on there are keys in memory
    keys = read_keys(settings.storage.encryption)
    code = EX_OK
    for name in options.files:
        progress = Progress()
        try:
            with Bar(f"verifying {name}", lambda progress=progress: (progress.bytes_read, progress.bytes_total)):  # type: ignore[misc]
                state = offline.of_snapshot(
                    Path(name), partial(Table, tombstone_ttl_ms=settings.session.tombstone_ttl_ms), keys, progress
                )
        except SnapshotDamaged as damage:
            print(f"damaged: {damage}")
            code = EX_DATAERR
        except OSError as error:
            raise ApiError("TM-CFG-1003", {"file": name, "reason": error.strerror or "cannot be read"}) from error
        else:
            active = state.table.stats()["sessions_active"]
            counts = f"{active} sessions{_part(state)}, {len(state.keyring)} API keys"
            print(f"whole: {name}: {counts}, up to record {state.sequence}")
    return code


def _restore(options: argparse.Namespace, settings: Settings) -> int:
    moment = _moment(options)
    if (options.what is None) == (moment is None):
        raise ApiError("TM-ARG-1002", {"SNAPSHOT": "name a snapshot, or a moment with --to-sequence or --to-time"})
    directory = settings.storage.dir
    try:
        call(directory, "GET", SNAPSHOTS)
    except ApiError as error:
        if error.code != "TM-SYS-5030":
            raise
        return _restore_stopped(options.what, moment, settings)
    if moment is not None:
        raise ApiError("TM-ARG-1003", {"reason": "a server is running: stop it to go back to a moment"})
    if Path(options.what).is_file():
        with Bar(f"sending {options.what}") as bar:
            job = upload(directory, UPLOADS, Path(options.what), bar.tell)
    else:
        job = call(directory, "POST", RESTORES, {"snapshot_id": options.what}, timeout_s=None)
    return _watch(directory, job)


def _watch(directory: Path, job: dict[str, Any]) -> int:
    with Bar("restoring") as bar:
        while job["state"] == "running":  # the server ends it
            time.sleep(POLL_S)
            job = call(directory, "GET", f"{RESTORES}/{job['job_id']}")
            bar.tell(job["bytes_read"], job["bytes_total"])
    if job["state"] == "failed":
        print(f"the restore failed, and nothing has changed: {job['error']}")
        return EX_FAILURE
    print(f"restored: {job['entries']} entries")
    return EX_OK


def _moment(options: argparse.Namespace) -> Any:
    from tokmesh.snapshots.offline import Moment

    if options.to_sequence is not None and options.to_time is not None:
        raise ApiError("TM-ARG-1003", {"reason": "--to-sequence and --to-time are two answers to one question"})
    if options.to_sequence is not None:
        return Moment(sequence=options.to_sequence)
    if options.to_time is None:
        return None
    try:
        time_ = datetime.fromisoformat(options.to_time)
    except ValueError:
        raise ApiError("TM-ARG-1001", {"--to-time": "must be a time such as 2026-01-31T12:00:00+00:00"}) from None
    if time_.tzinfo is None:
        raise ApiError("TM-ARG-1001", {"--to-time": "must say its time zone, such as 2026-01-31T12:00:00+00:00, or end in Z"})
    return Moment(time_ms=int(time_.timestamp() * 1000))


def _restore_stopped(what: str | None, moment: Any, settings: Settings) -> int:
    from tokmesh._core.clock import Clock
    from tokmesh._core.table import Table
    from tokmesh.host import data_directory, process
    from tokmesh.host.encryption_keys import read_keys
    from tokmesh.snapshots import offline
    from tokmesh.storage.recovery import Progress
    from tokmesh.storage.rekey import finish
    from tokmesh.storage.segment import LOG_DIRECTORY, lock_directory, make_directory
    from tokmesh.storage.snapshot_directory import SNAPSHOT_DIRECTORY, snapshot_named
    from tokmesh.storage.snapshot_file import PURPOSE, About, SnapshotDamaged

    process.harden()
    storage = settings.storage
    data_directory.prepare(storage.dir)
    if settings.cluster.enabled or data_directory.is_of_cluster(storage.dir):
        reason = "cluster: its stream says what sessions there are; for a server alone, restore into an empty directory"
        raise ApiError("TM-ADMIN-4091", {"reason": reason})
    log, snapshots, clock, progress = storage.dir / LOG_DIRECTORY, storage.dir / SNAPSHOT_DIRECTORY, Clock(), Progress()
    keys = read_keys(storage.encryption)
    new_table = partial(Table, tombstone_ttl_ms=settings.session.tombstone_ttl_ms)
    make_directory(log)
    lock_fd = lock_directory(log)
    try:
        finish(log)
        with Bar("reading", lambda: (progress.bytes_read, progress.bytes_total)):
            if moment is not None:
                state = offline.of_moment(moment, snapshots, log, new_table, keys, progress)
            else:
                path = Path(str(what)) if Path(str(what)).is_file() else snapshot_named(snapshots, str(what))
                if path is None:
                    raise ApiError("TM-ADMIN-4041", {"SNAPSHOT": "no file of that name, and no snapshot of that id"})
                state = offline.of_snapshot(path, new_table, keys, progress)
        sealer = keys.new_sealer(PURPOSE) if storage.encryption.enabled and keys is not None else None
        about = About(data_directory.node_id(storage.dir, clock), __version__)
        file = offline.restore(state, snapshots, log, about, clock.now_ms(), sealer)
    except SnapshotDamaged as damage:
        raise ApiError("TM-ADMIN-4221", {"file": str(damage.path), "offset": damage.offset, "reason": damage.reason}) from damage
    finally:
        os.close(lock_fd)
    stats = state.table.stats()
    print(f"the next start begins from {file.id}: {stats['sessions_active']} sessions{_part(state)}, {len(state.keyring)} API keys")
    return EX_OK


def _part(state: "Restorable") -> str:
    """That other nodes of the cluster held the rest, if so."""
    from tokmesh.ids import ALL_SHARDS, SHARDS

    return "" if state.held == ALL_SHARDS else f" ({state.held.bit_count()} of {SHARDS} shards: other nodes held the rest)"
