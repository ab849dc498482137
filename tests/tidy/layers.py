"""Arrows between modules: who may import whom (ARCHITECTURE.md "The rooms").

    cli → app → api → sessions, keys → log → storage → _core; app → node_log → cluster → sessions, store → log;
    app → backups → state → snapshots → store → log;  telemetry is read by api, set up by app, and told by no one.

ARROWS lists, for each room, the rooms it imports besides itself. Rooms stand in the order of the house: an arrow goes to a room
further down. A room that is not listed is a finding, so that a new one gets its arrows stated, and so is an arrow that nothing
uses. Imports inside functions and under TYPE_CHECKING count: an arrow is an arrow.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from tests.tidy.sources import Finding, Source

ARROWS: dict[str, frozenset[str]] = {
    room: frozenset("" if each == "tokmesh" else each for each in imported.split())
    for room, imported in (  # tokmesh: the version in tokmesh/__init__.py
        ("__main__", "cli"),
        ("cli", "app derived cluster state snapshots host log storage config telemetry console ids _core errors tokmesh"),
        ("app", "derived api node_log backups state sessions keys host storage config telemetry _core errors tokmesh"),
        ("derived", "config telemetry _core"),
        ("api", "backups sessions keys snapshots keyring config telemetry console ids _core errors"),
        ("node_log", "cluster state sessions host log config _core"),
        ("cluster", "sessions store following keyring log ids _core errors"),
        ("backups", "state snapshots storage config ids"),
        ("state", "snapshots store keyring log storage config _core"),
        ("sessions", "log ids _core errors"),
        ("keys", "keyring log ids _core errors"),
        ("snapshots", "store following keyring log storage ids _core errors"),
        ("store", "following keyring log ids _core"),
        ("following", "log ids _core"),
        ("keyring", "log ids _core"),
        ("log", "storage ids _core errors"),
        ("host", "storage config ids _core errors"),
        ("storage", "_core errors"),
        ("config", "errors"),
        ("telemetry", "ids _core errors"),
        ("console", ""),
        ("ids", "_core"),
        ("_core", "errors"),
        ("errors", ""),
        ("", ""),
    )
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

# What the architecture's table of rooms leaves out: the entry, and what everybody may know.
OPEN = frozenset({"__main__", "ids", "errors", ""})
_ROOM_ROW = re.compile(r"\| `(?P<room>\w+)(?:/|\.py)` \| [^|]* \| (?P<known>[^|]*) \|$")
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
            target = _target(source, line, name, known_modules)
            if target is not None and target not in ARROWS[room]:
                yield Finding(source.path, line, f"imports {name}: no arrow from {room or 'tokmesh'} to {target or 'tokmesh'}")


def check_arrows_used(sources: Iterable[Source], known_modules: frozenset[str]) -> Iterator[Finding]:
    """Every arrow of ARROWS is one that some module takes."""
    taken = {
        (room_of(source.module), _target(source, line, name, known_modules))
        for source in sources
        for line, name in imported_modules(source)
    }
    for room, targets in ARROWS.items():
        for target in sorted(targets):
            if (room, target) not in taken:
                yield Finding("tests/tidy/layers.py", 1, f"states an arrow from {room} to {target or 'tokmesh'}: nothing takes it")


def check_order(arrows: dict[str, frozenset[str]]) -> Iterator[Finding]:
    """Every arrow goes down the list."""
    places = {room: place for place, room in enumerate(arrows)}
    for room, targets in arrows.items():
        for target in sorted(targets):
            if places[target] <= places[room]:
                yield Finding("tests/tidy/layers.py", 1, f"lets {room} import {target}, which stands above it")


def check_rooms(architecture: Source, arrows: dict[str, frozenset[str]]) -> Iterator[Finding]:
    """The table of rooms has each of ARROWS that is not OPEN, in that order, and what it may know that is not OPEN."""
    told: list[str] = []
    for line, text in enumerate(architecture.lines, 1):
        if (match := _ROOM_ROW.match(text)) is not None and match["room"] in arrows:
            told.append(match["room"])
            known = arrows[match["room"]] - OPEN
            if frozenset(re.findall(r"`(\w+)`", match["known"])) != known:
                yield Finding(architecture.path, line, f"{match['room']} may know {', '.join(sorted(known)) or 'nothing'}")
    if told != [room for room in arrows if room not in OPEN]:
        yield Finding(architecture.path, 1, f"the rooms {' '.join(told)} are not those of ARROWS, in that order")


def _target(source: Source, line: int, name: str, known_modules: frozenset[str]) -> str | None:
    """The room that an import leads to; None: it stays in its own, or leads out of the package."""
    # `from tokmesh import ids` is about ids; only its names beside modules (the version) make it about the package itself.
    if name not in known_modules or (name == "tokmesh" and "__version__" not in source.lines[line - 1]):
        return None
    target = room_of(name)
    return None if target == room_of(source.module) else target


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
