"""`tokmesh cluster status|nodes|remove|rebalance|leave`: the cluster as this host's server sees it, by its Unix socket."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from tokmesh.cli.config import load_options
from tokmesh.cli.local import call, path_segment
from tokmesh.cli.starting import waits_for
from tokmesh.cli.table import print_rows
from tokmesh.errors import EX_FAILURE, EX_OK, ApiError

NODES: Final = "/admin/v1/cluster/nodes"
LEAVE: Final = "/admin/v1/cluster/leave"
REBALANCE: Final = "/admin/v1/cluster/rebalance"
_REASONS: Final = {
    "removed": "this node was taken out of the cluster; it joins again when it is restarted",
    "stream_lost": "the stream has lost what was acknowledged; docs/cluster-failures.md tells what to do",
    "stands_apart": "this node's table is wrong, and it answers nothing; docs/runbooks/TokMeshTablesDiffer.md tells what to do",
    "tables_differ": "another node's table differs from this one's; docs/runbooks/TokMeshTablesDiffer.md tells what to do",
    "quorum_lost": "writes are refused: no majority of the nodes is in reach, or the stream takes no records",
    "shards_unheld": "nobody in reach holds some of the sessions; docs/runbooks/TokMeshShardsUnheld.md tells what to do",
    "node_down": "a member cannot be heard",
    "even_number": "an even number of nodes survives no more failures than one node less",
}

_SHARDS: Final = {"held": "held here", "loading": "being loaded", "leaving": "being left", "unheld": "held by nobody in reach"}


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Runs one action. Raises ApiError (the server's refusal, or TM-SYS-5030 without a server) or ConfigError."""
    directory = load_options(options, settings).settings.storage.dir
    if options.action == "remove":
        node_id = path_segment(options.node_id, "node_id", "must be the id of a node, tmnd-…")
        told = call(directory, "POST", f"{NODES}/{node_id}/remove", {})
        print(json.dumps(told) if options.json else f"{told['node_id']} is no member any more")
        return EX_OK
    if options.action == "rebalance":
        told = call(directory, "POST", REBALANCE, {})
        print(json.dumps(told) if options.json else _waited_for(told["away"]))
        return EX_OK
    if options.action == "leave":
        told = call(directory, "POST", LEAVE, {})
        print(json.dumps(told) if options.json else f"{told['node_id']} has left the cluster, and stops")
        return EX_OK
    return _show(options, directory)


def _show(options: argparse.Namespace, directory: Path) -> int:
    """`status`: exit code 1 when it is DEGRADED. `nodes`: 0 whatever they are."""
    try:
        found = call(directory, "GET", NODES)
    except ApiError as error:
        waiting = waits_for(directory) if error.code == "TM-SYS-5030" and options.action == "status" else None
        if waiting is None:
            raise
        return _show_start(options, waiting)
    if options.json:
        print(json.dumps(found if options.action == "status" else found["items"]))
    elif options.action == "status":
        _print_status(found)
    else:
        _print_nodes(found["items"])
    return EX_FAILURE if options.action == "status" and found["status"] != "OK" else EX_OK


def _show_start(options: argparse.Namespace, waiting: dict[str, str]) -> int:
    """`status` of a node that does not serve yet."""
    if options.json:
        print(json.dumps({"status": "STARTING", "reasons": ["starting"], "waits_for": waiting}))
    else:
        print("STARTING: this node does not serve yet; it waits for")
        for name, reason in waiting.items():
            print(f"  {name}: {reason}")
    return EX_FAILURE


def _print_status(found: dict[str, Any]) -> None:
    cluster = found["cluster"]
    if "removed" in found["reasons"]:
        print(f"{found['status']}: this node is no member any more")
    else:
        print(f"{found['status']}: {cluster['active']} active, {cluster['down']} down, quorum {cluster['quorum']}")
    for reason in found["reasons"]:
        print(f"  {reason}: {_REASONS.get(reason, '')}")
    print(f"cluster {cluster['name']} ({cluster['id']}), a majority is {cluster['majority']}")
    print(f"stream {cluster['stream']}, applied up to {cluster['applied']}")
    shards = cluster["shards"]
    print("of 64 shards " + ", ".join(f"{shards[name]} {words}" for name, words in _SHARDS.items()))
    nats = cluster["nats"]
    reason = "" if nats["reason"] is None else f": {nats['reason']}"
    print(f"NATS {nats['state']}{reason}")


def _waited_for(away: list[str]) -> str:
    if not away:
        return "no member is away: nothing is waited for"
    return f"not waited for any longer: {', '.join(away)}; the others load what they are to hold instead"


def _print_nodes(items: list[dict[str, Any]]) -> None:
    rows = [("NODE", "STATE", "HEARD", "APPLIED", "LAG", "SHARDS", "SESSIONS", "VERSION")]
    for item in items:
        rows.append((
            item["node_id"] + (" (this)" if item["self"] else ""),
            item["state"],
            _seconds(item["heard_seconds_ago"], " ago"),
            _text(item["applied"]),
            _seconds(item["lag_seconds"]),
            _text(item["shards"]),
            _text(item["sessions"]),
            _text(item["version"]),
        ))  # fmt: skip
    print_rows(rows)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _seconds(value: float | None, more: str = "") -> str:
    return "-" if value is None else f"{value:.3f} s{more}"
