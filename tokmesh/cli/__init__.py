"""The command `tokmesh`: parses the line, runs one command, turns refusals into one clear line and an exit code.

Importing this module must stay cheap: a command's own imports happen when it is chosen. Exit codes are those of
sysexits(3): 0 done, 1 failed, 64 usage, 65 data, 69 unavailable, 74 standard output, 78 configuration.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import Final, NoReturn, Protocol, TextIO, cast

from tokmesh.cli.help_texts import (
    BACKUP_EXAMPLES,
    CLUSTER_EXAMPLES,
    CONFIG_EXAMPLES,
    DESCRIPTION,
    DOCTOR_EXAMPLES,
    KEY_EXAMPLES,
    LOG_LEVEL_EXAMPLES,
    SERVE_EXAMPLES,
    SETTINGS_HELP,
    STORAGE_EXAMPLES,
    TOP_EXAMPLES,
    WAL_EXAMPLES,
)
from tokmesh.cli.output import Output, abandon
from tokmesh.errors import ERRORS, EX_CONFIG, EX_FAILURE, EX_OK, EX_USAGE, ApiError

_INTERRUPTED: Final = 130  # what a shell expects of a process ended by SIGINT


class Command(Protocol):
    """What a module of a command offers."""

    def run(self, options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
        """Does the work; returns the exit code. Raises ApiError or ConfigError for a refusal."""
        ...


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, with a code, and with sysexits' status for usage."""

    def error(self, message: str) -> NoReturn:
        """Prints the one line and ends the process."""
        self.exit(EX_USAGE, f"{self.prog}: TM-ARG-1001: {message} (try {self.prog} --help)\n")


def _add(parent: "argparse._SubParsersAction[_Parser]", name: str, summary: str, epilog: str) -> _Parser:
    return parent.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_settings_options(parser: _Parser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings")
    parser.add_argument("--KEY", metavar="VALUE", help="any setting, such as --storage.dir=DIR", action="append", default=[])


def _add_server_options(parser: _Parser, *, json: bool = True) -> None:
    """Of a command about the server on this host, which its data directory names."""
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--dir", metavar="DIR", help="the server's data directory, short for --storage.dir")
    _add_settings_options(parser)


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line, without the settings, which the table of keys defines."""
    parser = _Parser(
        prog="tokmesh",
        description=DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="`tokmesh COMMAND --help` tells more about a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = _add(commands, "serve", "start a server in the foreground", SETTINGS_HELP + SERVE_EXAMPLES)
    _add_settings_options(serve)
    serve.set_defaults(module="serve")
    _add_key(commands)
    config = _add(commands, "config", "check or show the configuration", SETTINGS_HELP + CONFIG_EXAMPLES)
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("check", "check the configuration; list every error, or say that it is good"),
        ("show", "print every setting with its value and where it came from"),
        ("reference", "print docs/configuration.md"),
    ):
        _add_settings_options(_add(actions, name, summary, SETTINGS_HELP))
    config.set_defaults(module="config")
    _add_log_level(commands)
    _add_views(commands)
    _add_wal(commands)
    _add_storage(commands)
    _add_backup(commands)
    _add_cluster(commands)
    version = _add(commands, "version", "print the version", "")
    version.set_defaults(module="version")
    return parser


def _add_key(commands: "argparse._SubParsersAction[_Parser]") -> None:
    key = _add(commands, "key", "make, list, disable and enable API keys of the server on this host", KEY_EXAMPLES)
    key.set_defaults(module="key")
    actions = key.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = _add(actions, "create", "make an API key and print it once, as key_id:secret", KEY_EXAMPLES)
    create.add_argument("--role", required=True, choices=("metrics", "validator", "issuer", "admin"), help="what the key may do")
    create.add_argument("--description", default="", metavar="TEXT", help="what the key is for")
    create.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NETWORK",
        help="address or CIDR block the key may be used from; may be repeated (default: anywhere)",
    )
    create.add_argument("--rate-limit", type=int, metavar="N", help="requests a second (default: no limit)")
    create.add_argument("--expires-in", metavar="DURATION", help="such as 90d (default: never)")
    listing = _add(actions, "list", "list API keys; secrets are not kept and cannot be shown", KEY_EXAMPLES)
    disable = _add(actions, "disable", "disable an API key at once", KEY_EXAMPLES)
    enable = _add(actions, "enable", "enable a disabled API key", KEY_EXAMPLES)
    for changing in (disable, enable):
        changing.add_argument("key_id", metavar="KEY_ID", help="tmak-…")
    for each in (create, listing, disable, enable):
        _add_server_options(each)


def _add_log_level(commands: "argparse._SubParsersAction[_Parser]") -> None:
    log_level = _add(commands, "log-level", "show or change what the server on this host logs", LOG_LEVEL_EXAMPLES)
    log_level.set_defaults(module="log_level")
    actions = log_level.add_subparsers(dest="action", metavar="ACTION", required=True)
    get = _add(actions, "get", "show the level, and when it returns to the configured one", LOG_LEVEL_EXAMPLES)
    change = _add(actions, "set", "change the level until the next restart, or for a while", LOG_LEVEL_EXAMPLES)
    change.add_argument("level", metavar="LEVEL", help="debug, info, warn or error")
    change.add_argument("--for", dest="time", metavar="DURATION", help="return to the configured level after, such as 10m")
    for each in (get, change):
        _add_server_options(each)


def _add_views(commands: "argparse._SubParsersAction[_Parser]") -> None:
    doctor = _add(commands, "doctor", "say what is wrong with the server on this host, in words", DOCTOR_EXAMPLES)
    doctor.add_argument("--explain", metavar="NAME", help="print what an alert or condition means and what to do")
    top = _add(commands, "top", "show the server on this host, live", TOP_EXAMPLES)
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between looks (default: 1)")
    top.add_argument("--once", action="store_true", help="print one look and end")
    _add_server_options(doctor)
    _add_server_options(top, json=False)
    doctor.set_defaults(module="doctor")
    top.set_defaults(module="top")


def _add_wal(commands: "argparse._SubParsersAction[_Parser]") -> None:
    wal = _add(commands, "wal", "check, show or salvage the log of a stopped server", WAL_EXAMPLES)
    wal.set_defaults(module="wal")
    actions = wal.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = _add(actions, "verify", "read every record; say that the log is whole, or where it is not", WAL_EXAMPLES)
    stats = _add(actions, "stats", "count bytes, frames and records, by segment", WAL_EXAMPLES)
    dump = _add(actions, "dump", "print records, one JSON object a line, without secrets and personal data", WAL_EXAMPLES)
    dump.add_argument("--from", dest="first", type=int, default=1, metavar="SEQUENCE", help="first record to print")
    dump.add_argument("--to", dest="last", type=int, metavar="SEQUENCE", help="last record to print")
    dump.add_argument("--kind", action="append", default=[], metavar="KIND", help="print only this kind; may be repeated")
    salvage = _add(actions, "salvage", "write what can be read of a damaged log into a new data directory", WAL_EXAMPLES)
    salvage.add_argument("--to", dest="target", required=True, metavar="NEW", help="a directory that is new or empty")
    for each in (verify, stats, salvage):
        each.add_argument("--json", action="store_true", help="print JSON")
    for each in (verify, stats, dump, salvage):
        source = "a data directory or a log directory, short for --storage.dir"
        each.add_argument("--dir", dest="source", metavar="DIR", help=source)
        _add_settings_options(each)


def _add_storage(commands: "argparse._SubParsersAction[_Parser]") -> None:
    storage = _add(commands, "storage", "work on the data directory of a stopped server", STORAGE_EXAMPLES)
    storage.set_defaults(module="storage")
    actions = storage.add_subparsers(dest="action", metavar="ACTION", required=True)
    rekey = _add(actions, "rekey", "write the log anew: under the first key, or without encryption", STORAGE_EXAMPLES)
    rekey.add_argument("--remove-broken", action="store_true", help="remove the copies of torn tails, which stay as they are")
    _add_server_options(rekey, json=False)


def _add_backup(commands: "argparse._SubParsersAction[_Parser]") -> None:
    backup = _add(commands, "backup", "take, fetch, check and restore snapshots", BACKUP_EXAMPLES)
    backup.set_defaults(module="backup")
    actions = backup.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = _add(actions, "create", "take a snapshot of the running server", BACKUP_EXAMPLES)
    listing = _add(actions, "list", "list the snapshots that the server keeps, newest first", BACKUP_EXAMPLES)
    fetch = _add(actions, "fetch", "copy a snapshot of the running server to a file", BACKUP_EXAMPLES)
    fetch.add_argument("snapshot_id", metavar="SNAPSHOT", help="its id, as `list` shows it")
    fetch.add_argument("file", metavar="FILE", help="a file that does not exist")
    verify = _add(actions, "verify", "read backup files through, as a restore would", BACKUP_EXAMPLES)
    verify.add_argument("files", metavar="FILE", nargs="+")
    restore = _add(actions, "restore", "replace everything with what a snapshot holds", BACKUP_EXAMPLES)
    restore.add_argument("what", metavar="SNAPSHOT", nargs="?", help="the id of a snapshot that is kept, or a file")
    restore.add_argument("--to-sequence", type=int, metavar="N", help="instead: as of record N of the log; of a stopped server")
    restore.add_argument("--to-time", metavar="TIME", help="instead: as of that time (ISO 8601 with its zone); of a stopped server")
    for each in (create, listing, fetch, verify, restore):
        _add_server_options(each, json=each in (create, listing))


def _add_cluster(commands: "argparse._SubParsersAction[_Parser]") -> None:
    cluster = _add(commands, "cluster", "show and change the cluster of this host's server; prepare one", CLUSTER_EXAMPLES)
    actions = cluster.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("status", "say how the cluster is; exit code 1 when something is wrong"),
        ("nodes", "list the nodes as this one sees them"),
        ("remove", "take a node out of the cluster for good"),
        ("rebalance", "have the shards of members that are away held by others at once"),
        ("leave", "take this node out of the cluster, and stop it"),
    ):
        each = _add(actions, name, summary, CLUSTER_EXAMPLES)
        if name == "remove":
            each.add_argument("node_id", metavar="NODE_ID", help="tmnd-…, as `nodes` shows it")
        _add_server_options(each)
        each.set_defaults(module="cluster")
    reseed = _add(actions, "reseed", "put what this host's stopped server has back into a stream that was lost", CLUSTER_EXAMPLES)
    reseed.add_argument("--anyway", action="store_true", help="of a node that was away too: revoked sessions may come back")
    _add_server_options(reseed, json=False)
    reseed.set_defaults(module="reseed")
    init = _add(actions, "init", "print the configuration of a new cluster's NATS servers", CLUSTER_EXAMPLES)
    init.add_argument("--print-nats-conf", action="store_true", help="print a ready configuration of nats-server")
    init.add_argument("--name", default="tokmesh", help="cluster.name of the nodes (default: tokmesh)")
    init.add_argument(
        "--hosts", default="nats-1,nats-2,nats-3", metavar="HOST,HOST,HOST",
        help="names or addresses of the NATS servers, three or more and an odd number (default: nats-1,nats-2,nats-3)",
    )  # fmt: skip
    init.add_argument("--conf-dir", default="/etc/nats", metavar="DIR", help="where it is on the servers (default: /etc/nats)")
    init.add_argument("--store-dir", default="/var/lib/nats", metavar="DIR", help="where streams are kept (default: /var/lib/nats)")
    init.add_argument("--no-keys", action="store_true", help="make no keys: the environment of the servers has public ones")
    init.set_defaults(module="cluster_init")


def split_settings(parser: argparse.ArgumentParser, line: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--a.b=v` and `--a.b v` out of a line: (what is left for argparse, pairs of key name and text).

    A dot in an option's name is what makes it a setting. Nothing after `--` is one.
    """
    rest: list[str] = []
    pairs: list[tuple[str, str]] = []
    words = iter(line)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif not name.startswith("--") or "." not in name:
            rest.append(word)
        elif equals:
            pairs.append((name[2:], value))
        else:
            following = next(words, None)
            if following is None or following.startswith("--"):
                parser.error(f"{name} needs a value: {name}=VALUE")
            pairs.append((name[2:], following))
    return rest, pairs


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (argparse's own refusals raise SystemExit). What was printed is written then."""
    line = sys.argv[1:] if argv is None else argv
    output = Output(sys.stdout)
    try:
        with redirect_stdout(cast(TextIO, output)):
            try:
                code = _run(line)
            finally:
                output.flush()
        return code
    except ApiError as error:
        if error.code == "TM-CLI-1001":
            abandon()
        _report(error)
        return ERRORS[error.code].exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        abandon()  # the reader of our output went away; nothing is left to say
        return EX_OK
    except Exception as error:
        from tokmesh.config import ConfigError  # here, because it loads the table of keys

        if not isinstance(error, ConfigError):
            from tokmesh.ids import redact  # nobody knows what the text of a bug holds

            print(redact(f"tokmesh: TM-SYS-5000: internal error {type(error).__name__}: {error}"), file=sys.stderr)
            return EX_FAILURE
        print(
            f"tokmesh: configuration refused, {len(error.problems)} error{'s' * (len(error.problems) > 1)}:",
            file=sys.stderr,
        )
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        return EX_CONFIG


def _run(line: Sequence[str]) -> int:
    """The exit code of one command. Whatever it raises, and SystemExit."""
    parser = build_parser()
    rest, settings = split_settings(parser, line)
    options = parser.parse_args(rest)
    if getattr(options, "KEY", None):
        parser.error("--KEY stands for any setting, such as --storage.dir=DIR")
    module = cast(Command, import_module(f"tokmesh.cli.{options.module}"))
    return module.run(options, settings)


def _report(error: ApiError) -> None:
    """One line: code, message, and the facts that came with it. A kind of its own says it in its own words."""
    facts = "".join(f"; {name}: {value}" for name, value in (error.details or {}).items())
    print(f"tokmesh: {error}{facts if type(error) is ApiError else ''}", file=sys.stderr)
