"""HTTP headers kept in a file, because they hold credentials. Every defect of the file is a configuration error.

One `Name: value` a line; empty lines and lines that begin with # are left out. Errors name the line, never what is on it.
"""

import re
from pathlib import Path
from typing import Final

from tokmesh.config import ConfigError, Problem, why_unreadable

FILE_BYTES_MAX: Final = 64 << 10

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
# What the client that sends them decides by itself.
_RESERVED: Final = frozenset(("content-length", "content-type", "content-encoding", "transfer-encoding", "host", "connection"))


def read_headers(path: Path | None, key_name: str) -> dict[str, str]:
    """The headers of a file; none without one. key_name: of the configuration, for the error.

    Raises ConfigError: TM-CFG-1003 (no file), 1004 (unreadable), 1001 (a line that is no header), 1002 (too large), 1005 (a
    header that is given twice or not the file's to give).
    """
    if path is None:
        return {}

    def refuse(code: str, rule: str) -> ConfigError:
        return ConfigError([Problem(code, key_name, f"file {path}", rule)])

    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise refuse(*why_unreadable(error)) from None
    if len(content) > FILE_BYTES_MAX:
        raise refuse("TM-CFG-1002", f"the file is larger than {FILE_BYTES_MAX} bytes")
    headers: dict[str, str] = {}
    seen: set[str] = set()
    for number, line in enumerate(content.decode("latin-1").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon or _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise refuse("TM-CFG-1001", f"line {number} is not `Name: value`")
        if name.lower() in seen or name.lower() in _RESERVED:
            raise refuse("TM-CFG-1005", f"the header of line {number} is given twice or set by the client itself")
        seen.add(name.lower())
        headers[name] = value
    return headers
