"""Where the keys of encryption at rest come from: a file, a variable of the environment, or what a command prints.

One key a line: 32 random bytes in base64 or hex; empty lines and lines that begin with # are left out. The first seals what is
written from now on, all open what was written before. Every defect is a configuration error that names the source, the line and
the rule, and never what is on the line. Two processes that are given the same keys need nothing else to read each other's files.
"""

import binascii
import os
import re
import select
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokmesh.config import ConfigError, Problem, why_unreadable
from tokmesh.config.keys import EncryptionSettings
from tokmesh.config.loading import variable

if TYPE_CHECKING:  # the library it needs is an extra
    from tokmesh.storage.encryption import KeySet

KEY_BYTES: Final = 32
KEYS_MAX: Final = 64
TEXT_BYTES_MAX: Final = 64 << 10
DISTINCT_BYTES_MIN: Final = 12  # of a key: fewer are not random (random keys that have fewer: one in 10²⁴)
MAKE_ONE: Final = "openssl rand -base64 32"

_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def read_keys(settings: EncryptionSettings) -> "KeySet | None":
    """The keys that the settings name; None when they name none. Runs the command, which may take its time.

    Raises ConfigError: TM-CFG-1003 (no such file, command, variable), 1004 (permissions), 1001 (a line that is no key), 1002 (too
    short, too many, none at all, not random), 1006 (the command failed).
    """
    if settings.key_file is not None:
        name, source, text = "key_file", f"file {settings.key_file}", _from_file(settings.key_file)
    elif settings.key_command:
        name, source = "key_command", f"command {settings.key_command[0]}"
        text = _from_command(settings.key_command, settings.key_command_timeout_ms / 1000, source)
    elif settings.key_variable:
        name, source = "key_variable", f"environment {settings.key_variable}"
        text = _from_variable(settings.key_variable, source)
    else:
        return None
    keys = _parse(text, f"storage.encryption.{name}", source)
    from tokmesh.storage.encryption import KeySet

    return KeySet(keys)


def _refused(code: str, name: str, source: str, rule: str) -> ConfigError:
    return ConfigError([Problem(code, f"storage.encryption.{name}", source, rule)])


def _parse(text: bytes, name: str, source: str) -> list[bytes]:
    keys = []

    def refuse(code: str, rule: str) -> ConfigError:
        return ConfigError([Problem(code, name, source, rule)])

    if len(text) > TEXT_BYTES_MAX:
        raise refuse("TM-CFG-1002", f"there are more than {TEXT_BYTES_MAX} bytes")
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        key = _decode(line)
        if key is None:
            raise refuse("TM-CFG-1001", f"line {number} is not {KEY_BYTES} bytes in base64 or hex; make one with {MAKE_ONE}")
        if len(key) != KEY_BYTES:
            rule = f"the key of line {number} has {len(key)} bytes, and {KEY_BYTES} are needed; make one with {MAKE_ONE}"
            raise refuse("TM-CFG-1002", rule)
        if len(set(key)) < DISTINCT_BYTES_MIN:
            raise refuse("TM-CFG-1002", f"the key of line {number} is not random; make one with {MAKE_ONE}")
        keys.append(key)
    if not 1 <= len(keys) <= KEYS_MAX:
        raise refuse("TM-CFG-1002", f"it holds {len(keys)} keys, and 1 to {KEYS_MAX} are needed, one a line")
    return keys


def _decode(line: bytes) -> bytes | None:
    if _HEX.fullmatch(line):
        return bytes.fromhex(line.decode())
    if not _BASE64.fullmatch(line):
        return None
    text = line.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error:
        return None


def _from_file(path: Path) -> bytes:
    source = f"file {path}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(source, error) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _refused("TM-CFG-1004", "key_file", source, "it is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            rule = f"it belongs to user {status.st_uid}, and this process is user {os.geteuid()}; run chown {os.geteuid()}"
            raise _refused("TM-CFG-1004", "key_file", source, rule)
        if status.st_mode & 0o077:
            rule = f"it has mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it; run chmod 600"
            raise _refused("TM-CFG-1004", "key_file", source, rule)
        return os.read(fd, TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(source, error) from None
    finally:
        os.close(fd)


def _unreadable(source: str, error: OSError) -> ConfigError:
    code, rule = why_unreadable(error)
    return _refused(code, "key_file", source, rule)


def _from_variable(name: str, source: str) -> bytes:
    text = variable(name)
    if text is None:
        raise _refused("TM-CFG-1003", "key_variable", source, "there is no such variable")
    return text.encode("utf-8", "surrogateescape")


def _from_command(words: Sequence[str], timeout_s: float, source: str) -> bytes:
    """What the command prints. It runs without a shell, in a session of its own; what it says on standard error is dropped, since
    that may be a secret too."""
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise _refused("TM-CFG-1003", "key_command", source, f"it cannot be run ({error.strerror})") from None
    try:
        text = _output_of(process, time.monotonic() + timeout_s)
    except TimeoutError:
        raise _refused("TM-CFG-1006", "key_command", source, f"it has not ended within {timeout_s:g} s") from None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # also what it started
        except ProcessLookupError:
            pass
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if process.returncode != 0 and len(text) <= TEXT_BYTES_MAX:
        rule = f"it failed with status {process.returncode}; run it by hand, as this user, to see what it says"
        raise _refused("TM-CFG-1006", "key_command", source, rule)
    return text


def _output_of(process: "subprocess.Popen[bytes]", deadline_s: float) -> bytes:
    """All it prints until it ends, or one byte more than is wanted. TimeoutError."""
    assert process.stdout is not None
    fd, text = process.stdout.fileno(), b""
    while len(text) <= TEXT_BYTES_MAX:  # each turn reads bytes, ends or times out
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            raise TimeoutError
        piece = os.read(fd, TEXT_BYTES_MAX + 1 - len(text))
        if not piece:
            break
        text += piece
    else:
        return text
    try:
        process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return text
