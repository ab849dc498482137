"""`tokmesh top`: the server on this host at a terminal, live. The same figures as its status page, from the same summary."""

import argparse
import time
from pathlib import Path
from typing import Any, Final

from tokmesh.cli.config import load_options
from tokmesh.cli.local import call
from tokmesh.errors import EX_OK, ApiError

try:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise ApiError("TM-CFG-1006", {"tokmesh top": "needs rich: pip install 'tokmesh[top]' (in a clone: make extra)"}) from None

INTERVAL_S_MIN: Final = 0.2
INTERVAL_S_MAX: Final = 60.0
_STYLES: Final = {"critical": "bold red", "warning": "yellow"}
_UNKNOWN: Final = "–"
_SYNCS: Final = {"always": "each record", "off": "not each record", "unknown": "not all servers tell"}


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Shows until interrupted, or once. Raises ApiError (no server at the start, or not this user's) or ConfigError."""
    if not INTERVAL_S_MIN <= options.interval <= INTERVAL_S_MAX:
        raise ApiError("TM-ARG-1001", {"--interval": f"must be from {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g} seconds"})
    directory = load_options(options, settings).settings.storage.dir
    console = Console()
    shown = page(_asked(directory))
    if options.once:
        console.print(shown)
        return EX_OK
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        while True:  # ends with an interrupt
            time.sleep(options.interval)
            try:
                shown = page(_asked(directory))
            except ApiError as error:
                # The last figures stay, so that one can see what they were when the server went away.
                live.update(Group(Text(f"no answer: {error}", style=_STYLES["critical"]), shown), refresh=True)
                continue
            live.update(shown, refresh=True)


def _asked(directory: Path) -> dict[str, Any]:
    summary: dict[str, Any] = call(directory, "GET", "/admin/v1/status/summary")
    return summary


def page(summary: dict[str, Any]) -> "RenderableType":
    """One screen of a summary (docs/api.md)."""
    node, ready = summary["node"], summary["readiness"]["ready"]
    title = Text.assemble(
        ("TokMesh ", "bold"), node["version"], "  ", node["id"], f"  up {node['uptime_seconds']:.0f} s  ",
        ("ready", "green") if ready else ("not ready", _STYLES["critical"]),
    )  # fmt: skip
    members = [_members(summary["cluster"])] if summary["cluster"]["enabled"] else []
    return Group(title, _figures(summary), *members, _conditions(summary["conditions"]))


def _figures(summary: dict[str, Any]) -> "Table":
    rates, log, latency = summary["rates"], summary["log"], summary["rates"]["validate_latency_seconds"]
    verdicts, snapshots = rates["validations"], summary["snapshots"]
    rows = (
        ("sessions", f"{summary['sessions']['active']:,.0f} active", f"{summary['sessions']['expiry_backlog']:,.0f} to be swept"),
        ("requests", f"{_rate(rates['requests'])}", f"{_rate(rates['errors'])} of them 5xx"),
        ("validations", f"{_rate(verdicts.get('valid'))} valid", f"{_rate(verdicts.get('invalid'))} invalid"),
        ("latency of validate", f"P50 {_ms(latency['p50'])}", f"P99 {_ms(latency['p99'])}  P99.9 {_ms(latency['p999'])}"),
        ("log", f"{log['state']}, {log['sync_mode']}", f"{log['segments']:.0f} segments, {log['pending_records']:.0f} waiting"),
        ("snapshots", f"{snapshots['kept']:.0f} kept", f"{_bytes(snapshots['log_bytes'])} of log behind the newest"),
        ("disk", f"{_bytes(summary['disk']['free_bytes'])} free", f"of {_bytes(summary['disk']['total_bytes'])}"),
        ("memory", _bytes(summary["memory"]["used_bytes"]), f"of {_bytes(summary['memory']['limit_bytes'])}"),
        ("CPU", _percent(summary["cpu"]["usage_ratio"]), f"of {summary['cpu']['available_cores']:g} cores"),
        ("connections", f"{summary['connections']['open']:.0f} open", f"at most {summary['connections']['max']:.0f}"),
        ("nodes", f"{summary['cluster']['active']:.0f} active", f"{summary['cluster']['down']:.0f} down"),
        *_standing(summary["cluster"]),
    )  # fmt: skip
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(Text(row[0], style="dim"), *row[1:])
    return table


def _standing(cluster: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What a node of many may still say, and the way to its stream."""
    if not cluster["enabled"]:
        return []
    nats, current = cluster["nats"], f"proved current {_ms(cluster['staleness_seconds'])} ago"
    if cluster["removed"]:
        current = "taken out of the cluster"
    shards = cluster["shards"]
    quorum, reads = "held" if cluster["quorum"] else "lost", "refused" if cluster["fenced"] else "answered"
    return [
        ("cluster", f"quorum {quorum}, reads {reads}", current),
        ("shards", f"{shards['held']} of 64 held", f"{shards['loading']} loading, {shards['unheld']} held by nobody"),
        ("NATS", f"{nats['state']} {nats['version'] or ''}".rstrip(), f"stream applied to {cluster['position']:,.0f}"),
        ("NATS sync", nats["sync"], _SYNCS[nats["sync"]]),
    ]


def _members(cluster: dict[str, Any]) -> "Table":
    table = Table.grid(padding=(0, 2))
    for node in cluster["nodes"]:
        down = node["status"] == "down"
        lag = "this node" if node["is_self"] else f"{_ms(node['lag_seconds'])} behind"
        sessions = _UNKNOWN if node["sessions"] is None else f"{node['sessions']:,.0f} sessions"
        table.add_row(
            Text(node["id"], style="dim"),
            Text(node["status"], style=_STYLES["critical"] if down else "green"),
            _silence(node["silent_seconds"]) if down else lag,
            node["version"] or _UNKNOWN,
            sessions,
        )
    return table


def _conditions(conditions: list[dict[str, Any]]) -> "RenderableType":
    if not conditions:
        return Text("Nothing is wrong.", style="green")
    lines = [Text(f"{one['severity']}: {one['words']}", style=_STYLES[one["severity"]]) for one in conditions]
    return Group(*lines, Text("tokmesh doctor tells more.", style="dim"))


def _silence(seconds: float | None) -> str:
    return "never heard" if seconds is None else f"silent for {seconds:.0f} s"


def _rate(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.1f}/s"


def _ms(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{seconds * 1000:.2f} ms"


def _percent(ratio: float | None) -> str:
    return _UNKNOWN if ratio is None else f"{ratio * 100:.0f} %"


def _bytes(count: float | None) -> str:
    if count is None:
        return _UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
