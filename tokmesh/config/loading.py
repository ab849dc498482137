"""Loads the settings of a process; the only reader of the environment.

Sources, strongest first: command line, environment, YAML file, defaults. Nothing at all is a valid configuration.
Every error of every source is collected before anything is refused, and each names its key, its source and the rule it
breaks. Values of unknown names are not repeated in errors, and anything that looks like a credential is blanked: an
error may be a secret exported under a wrong name.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tokmesh.config.declaration import ENVIRONMENT_PREFIX, Key
from tokmesh.config.keys import (
    KEYS,
    KEYS_BY_ENVIRONMENT,
    KEYS_BY_NAME,
    SECTIONS,
    ClusterSettings,
    EncryptionSettings,
    Settings,
    build_settings,
    value_of,
)
from tokmesh.config.strict_yaml import StrictLoader
from tokmesh.config.values import BadValue

__all__ = ["ConfigError", "Loaded", "Problem", "Settings", "changed_keys", "load", "shown_lines", "why_unreadable"]

FILE_BYTES_MAX: Final = 1 << 20
PROBLEMS_MAX: Final = 200
_SHOWN_CHARS_MAX: Final = 80

# Names under the prefix that are not settings: the client's key in examples, the configuration file, the variant of the
# build, and what Kubernetes injects into every container of a namespace that has a Service called "tokmesh".
CONFIG_FILE_VARIABLE: Final = "TOKMESH_CONFIG"
_NOT_SETTINGS: Final = re.compile(
    r"TOKMESH_(KEY|CONFIG|BUILD|SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)"
)
_PLAIN: Final = re.compile(r"[A-Za-z0-9/.](?:[A-Za-z0-9/._:-]*[A-Za-z0-9])?")  # needs no quotes in YAML
_CREDENTIAL: Final = re.compile(r"tm(tk|as)_[A-Za-z0-9_-]+")
_USER_OF_URL: Final = re.compile(r"(?<=://)[^\s,]+(?=@)")  # to the last @: a password may hold one


@dataclass(frozen=True, slots=True)
class Problem:
    """One error: code, the key or name it is about, where it was given, what is wrong."""

    code: str
    name: str
    source: str
    rule: str

    def __str__(self) -> str:
        place = f" ({self.source})" if self.source else ""
        return f"{self.code} {self.name}{place}: {self.rule}"


class ConfigError(Exception):
    """The configuration is refused. problems: all of them, in the order of the sources, at least one."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)[:PROBLEMS_MAX]
        assert self.problems
        super().__init__("; ".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked settings, and by key name where each came from ("default", "command line", "environment …", "file …")."""

    settings: Settings
    sources: dict[str, str]
    config_file: Path | None


@dataclass(frozen=True, slots=True)
class _Given:
    """A raw value of a known key. base: what relative paths are relative to."""

    key: Key
    value: object
    source: str
    base: Path


def load(
    arguments: Iterable[tuple[str, str]] = (),
    *,
    environment: Mapping[str, str] | None = None,
    config_file: Path | None = None,
    config_text: bytes | None = None,
    base: Path | None = None,
) -> Loaded:
    """Reads all sources and checks the result.

    arguments: (key name, text) from the command line; a later one wins. environment: os.environ when None.
    config_file: the YAML file; else the environment's TOKMESH_CONFIG; else none. config_text: takes the place of what is in
    the file, which need not be there. base: the folder relative paths of
    command line and environment are relative to, the current one when None. Raises ConfigError with every problem.
    """
    variables = os.environ if environment is None else environment
    folder = Path.cwd() if base is None else base
    if config_file is None and variables.get(CONFIG_FILE_VARIABLE):
        config_file = Path(folder, variables[CONFIG_FILE_VARIABLE])
    problems: list[Problem] = []
    given = [
        *_from_file(config_file, config_text, folder, problems),
        *_from_environment(variables, folder, problems),
        *_from_arguments(arguments, folder, problems),
    ]
    values: dict[str, Any] = {}
    sources = {key.name: "default" for key in KEYS}
    for each in given:
        values.pop(each.key.name, None)
        _parse(each, values, problems)
        sources[each.key.name] = each.source
    settings = build_settings(values)
    named = {problem.name for problem in problems}  # a key whose value was refused is not also missing
    problems += [problem for problem in _check_together(settings, sources) if problem.name not in named]
    if problems:
        raise ConfigError(problems)
    return Loaded(settings, sources, config_file)


def _parse(each: _Given, values: dict[str, Any], problems: list[Problem]) -> None:
    row = each.key.row
    try:
        value = row.kind.parse(each.value, each.base)
    except BadValue as error:
        what = error.part or _shown(each.value)
        problems.append(Problem(error.code, each.key.name, each.source, f"{what} is not {row.kind.rule}"))
        return
    if row.needs is not None and value != row.kind.parse(row.default, each.base):
        rule = f"needs {row.needs}, which this version does not have; leave it at {row.default or 'empty'}"
        problems.append(Problem("TM-CFG-1006", each.key.name, each.source, rule))
        return
    values[each.key.name] = value


def _shown(value: object) -> str:
    """A value as it may appear in an error: short, on one line, without credentials."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"  # whose text may be longer than memory: YAML can say one item a million times
    if value is None:
        return "an empty value"
    text = value if isinstance(value, str) else str(value)
    text = without_secrets(text)
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "…")


def without_secrets(text: str) -> str:
    """`text` without credentials of ours, and without user and password of a URL."""
    return _USER_OF_URL.sub("[redacted]", _CREDENTIAL.sub("[redacted]", text))


def _unknown(name: str, source: str, candidates: Iterable[str]) -> Problem:
    close = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else ""
    return Problem("TM-CFG-1001", _CREDENTIAL.sub("[redacted]", name[:200]), source, f"no such key{hint}")


def _from_arguments(arguments: Iterable[tuple[str, str]], base: Path, problems: list[Problem]) -> Iterator[_Given]:
    for name, value in arguments:
        key = KEYS_BY_NAME.get(name)
        if key is None:
            problems.append(_unknown(name, "command line", KEYS_BY_NAME))
        else:
            yield _Given(key, value, "command line", base)


def _from_environment(variables: Mapping[str, str], base: Path, problems: list[Problem]) -> Iterator[_Given]:
    for name in sorted(each for each in variables if each.startswith(ENVIRONMENT_PREFIX)):
        key = KEYS_BY_ENVIRONMENT.get(name)
        if key is not None:
            yield _Given(key, variables[name], f"environment {name}", base)
        elif _NOT_SETTINGS.fullmatch(name) is None:
            problems.append(_unknown(name, "environment", KEYS_BY_ENVIRONMENT))


def _from_file(path: Path | None, text: bytes | None, folder: Path, problems: list[Problem]) -> Iterator[_Given]:
    """The values of a YAML file, or of the text given in its place; problems of its syntax end it, not the other sources."""
    if path is None and text is None:
        return
    source = "the text given" if text is not None else f"file {folder / path}" if path is not None else ""
    base = folder if path is None else (folder / path).parent
    content = _read(folder / path, source, problems) if text is None and path is not None else text
    if content is None:
        return
    if len(content) > FILE_BYTES_MAX:
        problems.append(Problem("TM-CFG-1002", "--config", source, f"it is larger than {FILE_BYTES_MAX} bytes"))
        return
    try:
        document = yaml.load(content, Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source} line {mark.line + 1}" if mark is not None else source
        problems.append(Problem("TM-CFG-1001", "--config", place, f"not valid YAML: {without_secrets(error.problem or '')[:200]}"))
        return
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, RecursionError):
        problems.append(Problem("TM-CFG-1001", "--config", source, "not valid YAML in UTF-8"))
        return
    if document is None:
        return
    if not isinstance(document, dict):
        problems.append(Problem("TM-CFG-1001", "--config", source, "the file must be a mapping of sections"))
        return
    yield from _flatten(document, "", source, base, set(), problems)


def _read(path: Path, source: str, problems: list[Problem]) -> bytes | None:
    """At most one byte more than a file may have; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        code, rule = why_unreadable(error)
        problems.append(Problem(code, "--config", source, rule))
    return None


def why_unreadable(error: OSError) -> tuple[str, str]:
    """Code and rule of the problem with a named file that could not be opened or read."""
    if isinstance(error, PermissionError):
        return "TM-CFG-1004", "the file cannot be read"
    if isinstance(error, IsADirectoryError):
        return "TM-CFG-1003", "it is a directory, not a file"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "TM-CFG-1003", "there is no such file"
    return "TM-CFG-1003", f"the file cannot be read: {error.strerror}"


def _flatten(
    mapping: dict[Any, Any], prefix: str, source: str, base: Path, seen: set[str], problems: list[Problem]
) -> Iterator[_Given]:
    """Leaves of a nested mapping. Dotted keys are short for nesting. Descends along known sections only: bounded."""
    for raw_name, value in mapping.items():
        name = f"{prefix}{raw_name}"
        key = KEYS_BY_NAME.get(name)
        if key is not None:
            if name in seen:
                problems.append(Problem("TM-CFG-1005", name, source, "given twice, once nested and once with dots"))
            seen.add(name)
            yield _Given(key, value, source, base)
        elif name not in SECTIONS:
            problems.append(_unknown(name, source, [*KEYS_BY_NAME, *sorted(SECTIONS)]))
        elif isinstance(value, dict):
            yield from _flatten(value, f"{name}.", source, base, seen, problems)
        elif value is not None:
            problems.append(Problem("TM-CFG-1001", name, source, "is a section, not a value: nest its keys below it"))


def _check_together(settings: Settings, sources: Mapping[str, str]) -> Iterator[Problem]:
    """Rules over several keys, and the files that must exist."""
    for key in KEYS:
        value = value_of(settings, key)
        if isinstance(value, Path) and key.name != "storage.dir":
            if value.is_dir():
                yield Problem("TM-CFG-1003", key.name, sources[key.name], f"{_shown(str(value))} is a directory, not a file")
            elif not value.is_file():
                yield Problem("TM-CFG-1003", key.name, sources[key.name], f"there is no file {_shown(str(value))}")
            elif not os.access(value, os.R_OK):
                yield Problem("TM-CFG-1004", key.name, sources[key.name], f"cannot read {_shown(str(value))}")
    ttl = settings.session.ttl
    if ttl.default_ms > ttl.max_ms:
        yield Problem("TM-CFG-1005", "session.ttl.default", sources["session.ttl.default"], "is longer than session.ttl.max")
    http = settings.server.http
    if http.max_body_size_bytes > http.body_buffer_size_bytes:
        name = "server.http.max_body_size"
        yield Problem("TM-CFG-1005", name, sources[name], "is larger than server.http.body_buffer_size")
    https = settings.server.https
    if https.enabled:
        for name, file in (("cert_file", https.tls.cert_file), ("key_file", https.tls.key_file)):
            if file is None:
                yield Problem("TM-CFG-1006", f"server.https.tls.{name}", "", "server.https.enabled needs it")
        if https.address == settings.server.http.address and https.address.port:
            yield Problem("TM-CFG-1005", "server.https.address", sources["server.https.address"], "is also server.http.address")
    tracing = settings.telemetry.tracing
    if tracing.enabled:
        if not tracing.endpoint:
            yield Problem("TM-CFG-1006", "telemetry.tracing.endpoint", "", "telemetry.tracing.enabled needs it")
        if not _can_import("opentelemetry.proto"):
            rule = "needs the package opentelemetry-proto, which is not installed: pip install tokmesh[otel]"
            yield Problem("TM-CFG-1006", "telemetry.tracing.enabled", sources["telemetry.tracing.enabled"], rule)
    yield from _check_encryption(settings.storage.encryption, sources)
    yield from _check_cluster(settings.cluster, sources)
    try:
        not_one = settings.storage.dir.exists() and not settings.storage.dir.is_dir()
    except OSError as error:  # a folder above it is closed to this user, or its name is too long
        yield Problem("TM-CFG-1004", "storage.dir", sources["storage.dir"], f"cannot be looked at ({error.strerror})")
    else:
        if not_one:
            yield Problem("TM-CFG-1004", "storage.dir", sources["storage.dir"], "is not a directory")


def _check_encryption(encryption: EncryptionSettings, sources: Mapping[str, str]) -> Iterator[Problem]:
    names = ("key_file", "key_command", "key_variable")
    given = [f"storage.encryption.{name}" for name in names if getattr(encryption, name)]
    if len(given) > 1:
        yield Problem("TM-CFG-1005", given[1], sources[given[1]], f"is given beside {given[0]}: keys come from one place")
    if encryption.enabled and not given:
        rule = "storage.encryption.enabled needs it, or key_command, or key_variable"
        yield Problem("TM-CFG-1006", "storage.encryption.key_file", "", rule)
    if (encryption.enabled or given) and not _can_import("cryptography"):
        name = "storage.encryption.enabled" if encryption.enabled else given[0]
        rule = "needs the package cryptography, which is not installed: pip install tokmesh[encryption]"
        yield Problem("TM-CFG-1006", name, sources[name], rule)


def _check_cluster(cluster: ClusterSettings, sources: Mapping[str, str]) -> Iterator[Problem]:
    if not cluster.enabled:
        return
    if not cluster.nats.servers:
        yield Problem("TM-CFG-1006", "cluster.nats.servers", "", "cluster.enabled needs it")
    if not _can_import("nats"):
        rule = "needs the package nats-py, which is not installed: pip install tokmesh[cluster]"
        yield Problem("TM-CFG-1006", "cluster.enabled", sources["cluster.enabled"], rule)
    if (cluster.nats.tls.cert_file is None) != (cluster.nats.tls.key_file is None):
        yield Problem("TM-CFG-1006", "cluster.nats.tls.cert_file", "", "cert_file and key_file are given together or not at all")


def variable(name: str) -> str | None:
    """What the environment says for a variable that a setting names."""
    return os.environ.get(name)


def _can_import(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package it is in is not there
        return False


def changed_keys(before: Settings, after: Settings) -> tuple[list[Key], list[Key]]:
    """Keys whose values differ, as (can be applied while running, need a restart)."""
    changed = [key for key in KEYS if value_of(before, key) != value_of(after, key)]
    return [key for key in changed if key.row.reloadable], [key for key in changed if not key.row.reloadable]


class Shown(NamedTuple):
    """One key as an operator sees it. value: as it would be written, without secrets; source: see Loaded."""

    name: str
    value: str
    default: str
    source: str
    reloadable: bool


def shown(settings: Settings, sources: Mapping[str, str]) -> list[Shown]:
    """Every key with its value. No key holds a secret, but a URL may have been given with a password in it."""
    return [
        Shown(
            key.name,
            without_secrets(key.row.kind.show(value_of(settings, key))),
            key.row.default,
            sources[key.name],
            key.row.reloadable,
        )
        for key in KEYS
    ]


def shown_lines(loaded: Loaded) -> Iterator[str]:
    """`key: value   # source` for every key, as YAML that would load to the same but for passwords."""
    for each in shown(loaded.settings, loaded.sources):
        text = f"{each.name}: {each.value if _PLAIN.fullmatch(each.value) else json.dumps(each.value)}"
        yield f"{text:<58} # {each.source}"
