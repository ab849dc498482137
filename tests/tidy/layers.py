"""Arrows between modules: who may import whom (DESIGN "The rooms").

    cli → app → api → sessions, keys → log, store → _core;  telemetry is read by api, set up by app, and told by no one.

ARROWS lists, for each room, the rooms it may import besides itself. A room that is not listed is a finding, so that a new one
gets its arrows stated. Imports inside functions and under TYPE_CHECKING count: an arrow is an arrow.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from tests.tidy.sources import Finding, Source

LEAVES = frozenset({"errors", "ids"})
ARROWS: dict[str, frozenset[str]] = {
    "": frozenset(),  # tokmesh/__init__.py
    "__main__": frozenset({"cli"}),
    "_core": frozenset({"errors"}),  # a table that imports nothing: below everything
    "errors": frozenset(),
    "ids": frozenset({"_core", "errors"}),
    "cluster": frozenset({"_core", "following", "keyring", "log", "sessions", "store", *LEAVES}),
    "following": frozenset({"_core", "log", *LEAVES}),
    "derived": frozenset({"_core", "config", "telemetry"}),
    "node_log": frozenset({"_core", "cluster", "config", "host", "log", "sessions", "state"}),
    "config": frozenset({"errors"}),
    "log": frozenset({"_core", "storage", *LEAVES}),
    "storage": frozenset({"_core", *LEAVES}),  # reached through log, app and the tools of cli only
    "keyring": frozenset({"_core", "log", *LEAVES}),
    "store": frozenset({"_core", "following", "log", "keyring", *LEAVES}),
    "sessions": frozenset({"_core", "log", "store", "config", *LEAVES}),
    "keys": frozenset({"_core", "log", "store", "keyring", "config", *LEAVES}),
    "console": frozenset(),  # files for a browser, and the code that reads them
    "telemetry": frozenset({"_core", "", *LEAVES}),
    "api": frozenset(
        {"_core", "sessions", "keys", "keyring", "telemetry", "console", "config", "backups", "snapshots", "", *LEAVES}
    ),
    "snapshots": frozenset({"_core", "following", "keyring", "log", "storage", "store", *LEAVES}),
    "state": frozenset({"_core", "config", "keyring", "log", "snapshots", "storage", "store", *LEAVES}),
    "backups": frozenset({"_core", "config", "snapshots", "state", "storage", *LEAVES}),
    "host": frozenset({"_core", "config", "storage", *LEAVES}),  # what surrounds the server on its machine
    "app": frozenset(
        {
            "_core",
            "api",
            "backups",
            "sessions",
            "keys",
            "log",
            "state",
            "storage",
            "store",
            "telemetry",
            "config",
            "derived",
            "host",
            "node_log",
            "",
            *LEAVES,
        }
    ),
    # log, storage: of a stopped server
    "cli": frozenset(
        {
            "_core",
            "app",
            "cluster",
            "config",
            "console",
            "derived",
            "host",
            "log",
            "snapshots",
            "state",
            "storage",
            "telemetry",
            "",
            *LEAVES,
        }
    ),
}
# Narrower than a room: module or package prefix → prefixes it must not import, and why.
FORBIDDEN: tuple[tuple[str, str, str], ...] = (
    *(
        (f"tokmesh.cluster.{judge}", name, "it judges what it is told: knows neither how that travels nor what it is about")
        for judge in ("beat", "peer", "quorum", "reach", "status", "trail")
        for name in ("tokmesh._core", "tokmesh.log", "tokmesh.cluster.link", "nats")
    ),
    ("tokmesh.api", "tokmesh._core.table", "handlers reach the table through sessions"),
    *(
        ("tokmesh.store", name, "apply takes no clock and no randomness: a record carries both")
        for name in ("time", "datetime", "random", "secrets", "uuid", "tokmesh._core.clock")
    ),
)

_CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<source>[\w.]+)\s+c?import\s+(?P<names>.+)|c?import\s+(?P<modules>[\w., ]+))", re.MULTILINE
)


def room_of(module: str) -> str:
    """The room of a module of the package: "log" for "tokmesh.log.record", "" for "tokmesh"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported_modules(source: Source) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a .py, .pyx or .pxd imports; `from a import b` gives both a.b and a."""
    if source.suffix == ".py":
        for node in ast.walk(ast.parse(source.text)):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(source, node.level, node.module or "")
                yield node.lineno, base
                yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)
        return
    for match in _CYTHON_IMPORT.finditer(source.text):
        line = source.text.count("\n", 0, match.start()) + 1
        if match["modules"]:
            yield from ((line, name.split()[0]) for name in match["modules"].split(",") if name.strip())
            continue
        level = len(match["source"]) - len(match["source"].lstrip("."))
        base = _absolute(source, level, match["source"].lstrip("."))
        yield line, base
        yield from ((line, f"{base}.{name.split()[0]}") for name in match["names"].strip("()").split(",") if name.strip())


def _absolute(source: Source, level: int, name: str) -> str:
    if level == 0:
        return name
    parts = source.module.split(".")
    package = parts if source.is_package else parts[:-1]
    return ".".join([*package[: len(package) - level + 1], *([name] if name else [])])


def check_arrows(sources: Iterable[Source], known_modules: frozenset[str]) -> Iterator[Finding]:
    """Every import of the package against ARROWS and FORBIDDEN. known_modules: the package's modules by dotted name."""
    for source in sources:
        room = room_of(source.module)
        if room not in ARROWS:
            yield Finding(source.path, 1, f"room {room!r} has no line in ARROWS (tests/tidy/layers.py)")
            continue
        for line, name in sorted(set(imported_modules(source))):
            for importer, imported, reason in FORBIDDEN:
                if _within(source.module, importer) and _within(name, imported):
                    yield Finding(source.path, line, f"imports {name}: {reason}")
            if name not in known_modules or (name == "tokmesh" and not _is_bare_import(source, line)):
                continue
            target = room_of(name)
            if target != room and target not in ARROWS[room]:
                yield Finding(source.path, line, f"imports {name}: no arrow from {room or 'tokmesh'} to {target or 'tokmesh'}")


def _is_bare_import(source: Source, line: int) -> bool:
    # `from tokmesh import ids` is about ids; only its names beside modules (the version) make it about the package itself.
    return "__version__" in source.lines[line - 1]


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
