"""`tokmesh cluster reseed`: what a stopped node has goes back into a stream that was lost."""

import argparse
import asyncio
import sys

from tokmesh.cli.config import load_options
from tokmesh.config import ConfigError, Problem, Settings
from tokmesh.errors import EX_OK, ApiError


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Of this host's stopped server, as its settings say. Raises ConfigError, ApiError."""
    from tokmesh.cli.nats_files import check_files
    from tokmesh.host import data_directory, process
    from tokmesh.host.apart import Apart

    process.harden()  # from here on there are keys in memory
    loaded = load_options(options, settings).settings
    if not loaded.cluster.enabled:
        rule = "must be true, as for the server: what is reseeded is a node of a cluster"
        raise ConfigError([Problem("TM-CFG-1005", "cluster.enabled", "", rule)])
    check_files(loaded.cluster.nats)
    data_directory.prepare(loaded.storage.dir)
    apart = Apart(loaded.storage.dir).reason
    if apart is not None:
        raise ApiError("TM-CLST-5050", {"reason": f"this node stands apart: {apart}", "cure": "reseed from the others"})
    return asyncio.run(_reseed(loaded, anyway=options.anyway))


async def _reseed(settings: Settings, *, anyway: bool) -> int:
    from tokmesh._core.clock import Clock
    from tokmesh.cluster.link import ApiRefused, Link, LinkDown
    from tokmesh.cluster.recall import recall_of
    from tokmesh.cluster.reseeding import Reseeding
    from tokmesh.cluster.statement import Stating
    from tokmesh.cluster.stream import Stream, StreamRefused
    from tokmesh.cluster.subjects import Subjects
    from tokmesh.host import data_directory
    from tokmesh.host.encryption_keys import read_keys
    from tokmesh.state import State

    clock = Clock()
    node_id = settings.cluster.node_id or data_directory.node_id(settings.storage.dir, clock)
    state = State(settings, clock, node_id, read_keys(settings.storage.encryption))
    state.replay()
    following = state.store.following
    link = Link(settings.cluster.nats, f"tokmesh reseed {node_id}")
    try:
        if not following.bound:
            rule = "there is no node of a cluster in it"
            raise ConfigError([Problem("TM-CFG-1005", "storage.dir", str(settings.storage.dir), rule)])
        await link.connect()
        subjects = Subjects(settings.cluster.name)
        stream = Stream(link, subjects, settings.cluster.nats.replicas)
        stating = Stating(
            subjects, state.table, state.keyring, following, settings.session.tombstone_ttl_ms, settings.session.ttl.max_ms
        )
        incarnation = data_directory.next_incarnation(settings.storage.dir, clock)
        recall = recall_of(following, state.snapshot_ms, settings.session.tombstone_ttl_ms)
        reseeding = Reseeding(
            link, stream, subjects, stating, state.table, state.keyring, following, clock, node_id, incarnation, recall, _tell
        )
        try:
            figures, bound = await reseeding.run(anyway=anyway)
        except (LinkDown, ApiRefused, StreamRefused) as error:
            raise ApiError("TM-CLST-5030", {"reason": str(error)}) from error
        state.log.start(asyncio.get_running_loop(), state.store.apply)
        await state.log.propose(bound)
        print(f"{figures.put} records are in the stream again, {figures.newer} were there as new or newer")
    finally:
        await link.close()
        await state.log.close()
    return EX_OK


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total} records")
        if done == total:
            sys.stderr.write("\n")
        sys.stderr.flush()
