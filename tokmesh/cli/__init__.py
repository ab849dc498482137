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

from tokmesh.cli.output import Output, abandon
from tokmesh.errors import ERRORS, EX_CONFIG, EX_FAILURE, EX_OK, EX_USAGE, ApiError

_INTERRUPTED: Final = 130  # what a shell expects of a process ended by SIGINT

_DESCRIPTION: Final = """\
TokMesh is a session and token server: it answers, very often and very fast, whether a token is good.

  tokmesh serve                          start a server; the first start prints an admin key once
  tokmesh key create --role=validator    make a key for an application (on the server's host)
  tokmesh config show                    what every setting is, and where it came from
  tokmesh doctor                         what is wrong with the server on this host, in words
  tokmesh wal verify                     whether the log of a stopped server is whole
"""

_SETTINGS_HELP: Final = """\
Any setting can be given as --key=value; docs/configuration.md and `tokmesh config show` list them. Sources, strongest
first: command line, environment (TOKMESH_SERVER_HTTP_ADDRESS), YAML file (--config FILE or TOKMESH_CONFIG), defaults.
"""

_SERVE_EXAMPLES: Final = """
examples:
  tokmesh serve
  tokmesh serve --config=/etc/tokmesh/tokmesh.yaml
  tokmesh serve --server.http.address=0.0.0.0:5080 --storage.dir=/var/lib/tokmesh
  TOKMESH_SESSION_TTL_DEFAULT=8h tokmesh serve --telemetry.logging.level=debug

signals:
  SIGTERM, SIGINT   stop accepting, finish what is in flight, close the log, exit 0
  SIGHUP            read the configuration again and apply what can be applied
"""

_KEY_EXAMPLES: Final = """
examples:
  tokmesh key create --role=issuer --description="checkout service"
  tokmesh key create --role=metrics --allow=10.0.0.0/8 --expires-in=90d
  tokmesh key list --storage.dir=/var/lib/tokmesh
  tokmesh key disable tmak-01jf3m7x5v8k2q9w4r6t1y0zab

The commands talk to the running server through the Unix socket `admin.sock` in its data directory. They need no API
key, but must run on the same host as the same user (or root).
"""

_CONFIG_EXAMPLES: Final = """
examples:
  tokmesh config check --config=tokmesh.yaml && echo good
  tokmesh config show --config=tokmesh.yaml --session.ttl.default=8h
"""

_LOG_LEVEL_EXAMPLES: Final = """
examples:
  tokmesh log-level get
  tokmesh log-level set debug --for=10m
"""

_WAL_EXAMPLES: Final = """
examples:
  tokmesh wal verify --dir=/var/lib/tokmesh && echo whole
  tokmesh wal stats --dir=/backup/tokmesh/log --json
  tokmesh wal dump --dir=/var/lib/tokmesh --from=1000 --kind=SessionsRevoked --kind=KeyCreated
  tokmesh wal salvage --dir=/var/lib/tokmesh --to=/var/lib/tokmesh-salvaged
  tokmesh wal verify --config=/etc/tokmesh/tokmesh.yaml     (an encrypted log: the settings name its keys)

The log must be that of a stopped server, or a copy made while it was stopped. Nothing of it is changed. The format is
told in docs/storage-format.md.

exit codes:
  0    the log is whole (salvage: every record was taken)
  65   damaged, of a later format, or no log at all (salvage: records are missing, or nothing could be read)
  69   a running server has it open, or the disk refused to write
  74   standard output cannot be written
  75   whole but for a torn tail: a write that a crash cut short, which the next start repairs
  78   missing, a symbolic link, open to others, not readable by this user, or encrypted under a key that is not given
"""


_BACKUP_EXAMPLES: Final = """
examples:
  tokmesh backup create
  tokmesh backup list
  tokmesh backup fetch snapshot-00000000000000012345 /backup/tokmesh.tms
  tokmesh backup verify /backup/tokmesh.tms && echo good
  tokmesh backup restore /backup/tokmesh.tms
  tokmesh backup restore --to-time=2026-01-31T12:00:00Z      (of a stopped server)

A restore replaces everything: sessions, and API keys. A running server refuses writes while it restores, and goes on answering
reads from what it had. docs/backup.md tells more. Exit codes: 0, 1 the restore failed, 65 a file is no whole backup.
"""

_DOCTOR_EXAMPLES: Final = """
examples:
  tokmesh doctor && echo well
  tokmesh doctor --explain TokMeshDiskSpaceLow

Exit codes: 0 nothing is wrong, 1 something is, 69 no server answers (its configuration is judged then).
"""

_TOP_EXAMPLES: Final = """
examples:
  tokmesh top
  tokmesh top --once

It needs rich: pip install 'tokmesh[top]', or in a clone make extra EXTRA=top. Ctrl-C ends it.
"""

_STORAGE_EXAMPLES: Final = """
examples:
  tokmesh storage rekey --config=/etc/tokmesh/tokmesh.yaml
  tokmesh storage rekey --storage.dir=/var/lib/tokmesh --storage.encryption.enabled=true \\
      --storage.encryption.key_file=/etc/tokmesh/storage.keys

The server must be stopped. Give the settings it will be started with: storage.encryption.enabled says whether the log is
encrypted afterwards, the first key is the one it is then under, and all keys that it is under now must be there too.
"""


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


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line, without the settings, which the table of keys defines."""
    parser = _Parser(
        prog="tokmesh",
        description=_DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="`tokmesh COMMAND --help` tells more about a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = _add(commands, "serve", "start a server in the foreground", _SETTINGS_HELP + _SERVE_EXAMPLES)
    _add_settings_options(serve)
    serve.set_defaults(module="serve")
    _add_key(commands)
    config = _add(commands, "config", "check or show the configuration", _SETTINGS_HELP + _CONFIG_EXAMPLES)
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("check", "check the configuration; list every error, or say that it is good"),
        ("show", "print every setting with its value and where it came from"),
        ("reference", "print docs/configuration.md"),
    ):
        _add_settings_options(_add(actions, name, summary, _SETTINGS_HELP))
    config.set_defaults(module="config")
    _add_log_level(commands)
    _add_views(commands)
    _add_wal(commands)
    _add_storage(commands)
    _add_backup(commands)
    version = _add(commands, "version", "print the version", "")
    version.set_defaults(module="version")
    return parser


def _add_key(commands: "argparse._SubParsersAction[_Parser]") -> None:
    key = _add(commands, "key", "make, list, disable and enable API keys of the server on this host", _KEY_EXAMPLES)
    key.set_defaults(module="key")
    actions = key.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = _add(actions, "create", "make an API key and print it once, as key_id:secret", _KEY_EXAMPLES)
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
    listing = _add(actions, "list", "list API keys; secrets are not kept and cannot be shown", _KEY_EXAMPLES)
    disable = _add(actions, "disable", "disable an API key at once", _KEY_EXAMPLES)
    enable = _add(actions, "enable", "enable a disabled API key", _KEY_EXAMPLES)
    for changing in (disable, enable):
        changing.add_argument("key_id", metavar="KEY_ID", help="tmak-…")
    for each in (create, listing, disable, enable):
        each.add_argument("--json", action="store_true", help="print JSON")
        each.add_argument("--dir", metavar="DIR", help="the server's data directory, short for --storage.dir")
        _add_settings_options(each)


def _add_log_level(commands: "argparse._SubParsersAction[_Parser]") -> None:
    log_level = _add(commands, "log-level", "show or change what the server on this host logs", _LOG_LEVEL_EXAMPLES)
    log_level.set_defaults(module="log_level")
    actions = log_level.add_subparsers(dest="action", metavar="ACTION", required=True)
    get = _add(actions, "get", "show the level, and when it returns to the configured one", _LOG_LEVEL_EXAMPLES)
    change = _add(actions, "set", "change the level until the next restart, or for a while", _LOG_LEVEL_EXAMPLES)
    change.add_argument("level", metavar="LEVEL", help="debug, info, warn or error")
    change.add_argument("--for", dest="time", metavar="DURATION", help="return to the configured level after, such as 10m")
    for each in (get, change):
        each.add_argument("--json", action="store_true", help="print JSON")
        each.add_argument("--dir", metavar="DIR", help="the server's data directory, short for --storage.dir")
        _add_settings_options(each)


def _add_views(commands: "argparse._SubParsersAction[_Parser]") -> None:
    doctor = _add(commands, "doctor", "say what is wrong with the server on this host, in words", _DOCTOR_EXAMPLES)
    doctor.add_argument("--explain", metavar="NAME", help="print what an alert or condition means and what to do")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    top = _add(commands, "top", "show the server on this host, live", _TOP_EXAMPLES)
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between looks (default: 1)")
    top.add_argument("--once", action="store_true", help="print one look and end")
    for name, each in (("doctor", doctor), ("top", top)):
        each.add_argument("--dir", metavar="DIR", help="the server's data directory, short for --storage.dir")
        _add_settings_options(each)
        each.set_defaults(module=name)
def _add_wal(commands: "argparse._SubParsersAction[_Parser]") -> None:
    wal = _add(commands, "wal", "check, show or salvage the log of a stopped server", _WAL_EXAMPLES)
    wal.set_defaults(module="wal")
    actions = wal.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = _add(actions, "verify", "read every record; say that the log is whole, or where it is not", _WAL_EXAMPLES)
    stats = _add(actions, "stats", "count bytes, frames and records, by segment", _WAL_EXAMPLES)
    dump = _add(actions, "dump", "print records, one JSON object a line, without secrets and personal data", _WAL_EXAMPLES)
    dump.add_argument("--from", dest="first", type=int, default=1, metavar="SEQUENCE", help="first record to print")
    dump.add_argument("--to", dest="last", type=int, metavar="SEQUENCE", help="last record to print")
    dump.add_argument("--kind", action="append", default=[], metavar="KIND", help="print only this kind; may be repeated")
    salvage = _add(actions, "salvage", "write what can be read of a damaged log into a new data directory", _WAL_EXAMPLES)
    salvage.add_argument("--to", dest="target", required=True, metavar="NEW", help="a directory that is new or empty")
    for each in (verify, stats, salvage):
        each.add_argument("--json", action="store_true", help="print JSON")
    for each in (verify, stats, dump, salvage):
        each.add_argument("--dir", metavar="DIR", help="a data directory or a log directory, short for --storage.dir")
        _add_settings_options(each)


def _add_storage(commands: "argparse._SubParsersAction[_Parser]") -> None:
    storage = _add(commands, "storage", "work on the data directory of a stopped server", _STORAGE_EXAMPLES)
    storage.set_defaults(module="storage")
    actions = storage.add_subparsers(dest="action", metavar="ACTION", required=True)
    rekey = _add(actions, "rekey", "write the log anew: under the first key, or without encryption", _STORAGE_EXAMPLES)
    rekey.add_argument("--remove-broken", action="store_true", help="remove the copies of torn tails, which stay as they are")
    rekey.add_argument("--dir", metavar="DIR", help="the server's data directory, short for --storage.dir")
    _add_settings_options(rekey)


def _add_backup(commands: "argparse._SubParsersAction[_Parser]") -> None:
    backup = _add(commands, "backup", "take, fetch, check and restore snapshots", _BACKUP_EXAMPLES)
    backup.set_defaults(module="backup")
    actions = backup.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = _add(actions, "create", "take a snapshot of the running server", _BACKUP_EXAMPLES)
    listing = _add(actions, "list", "list the snapshots that the server keeps, newest first", _BACKUP_EXAMPLES)
    fetch = _add(actions, "fetch", "copy a snapshot of the running server to a file", _BACKUP_EXAMPLES)
    fetch.add_argument("snapshot_id", metavar="SNAPSHOT", help="its id, as `list` shows it")
    fetch.add_argument("file", metavar="FILE", help="a file that does not exist")
    verify = _add(actions, "verify", "read backup files through, as a restore would", _BACKUP_EXAMPLES)
    verify.add_argument("files", metavar="FILE", nargs="+")
    restore = _add(actions, "restore", "replace everything with what a snapshot holds", _BACKUP_EXAMPLES)
    restore.add_argument("what", metavar="SNAPSHOT", nargs="?", help="the id of a snapshot that is kept, or a file")
    restore.add_argument("--to-sequence", type=int, metavar="N", help="instead: as of record N of the log; of a stopped server")
    restore.add_argument("--to-time", metavar="TIME", help="instead: as of that time (ISO 8601 with its zone); of a stopped server")
    for each in (create, listing):
        each.add_argument("--json", action="store_true", help="print JSON")
    for each in (create, listing, fetch, verify, restore):
        each.add_argument("--dir", metavar="DIR", help="the server's data directory, short for --storage.dir")
        _add_settings_options(each)


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
