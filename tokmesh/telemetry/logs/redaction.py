"""What may leave the process in a log line: every string redacted, cut and bounded before it is encoded.

Nothing that looks like a token, an API secret, or a SHA-256 in hex or in base64 leaves, wherever in a record it stands.
Redaction comes before encoding: after it, cutting a match could break an escape.
"""

import math
import re
from typing import Any, Final

from tokmesh import ids

STRING_CHARS_MAX: Final = 8192  # one string of a line; a stack keeps its end, where the cause is
CUT_CHARS: Final = 256  # longer than any secret
FIELDS_MAX: Final = 64  # items of one object or list
DEPTH_MAX: Final = 4

_HEX: Final = re.compile(r"[0-9a-fA-F]{64,}")
# 32 bytes or more in base64 or base64url, whatever stands before and after. Words and paths may be as long: see _unless_plain.
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43,}=?")
_MIXED: Final = (re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]"))
# Python's form of bytes; one that is not text could be a hash.
_BYTES: Final = re.compile(r"""\bb'(?:[^'\\]|\\.)*'|\bb"(?:[^"\\]|\\.)*\"""")


def redact(text: str) -> str:
    """`text` without anything that looks like a token, an API secret, or a SHA-256 in hex, base64 or Python's form of bytes."""
    text = _HEX.sub(ids.REDACTED, ids.redact(text))
    if len(text) < 43 and "\\x" not in text:
        return text
    return _BYTES.sub(_unless_text, _BASE64.sub(_unless_plain, text))


def _unless_plain(match: re.Match[str]) -> str:
    """32 random bytes have small letters, capitals and digits, but for one in a thousand; a path or a long word seldom has."""
    return ids.REDACTED if all(kind.search(match[0]) for kind in _MIXED) else match[0]


def _unless_text(match: re.Match[str]) -> str:
    return ids.REDACTED if "\\x" in match[0] else match[0]


def clean(text: str, keep_end: bool = False) -> str:
    """`text` redacted and cut to STRING_CHARS_MAX, keeping its start or its end.

    A long text is cut with a margin, redacted, and loses the margin: what a cut left of a secret is in it.
    """
    if len(text) <= STRING_CHARS_MAX:
        return redact(text)
    if keep_end:
        return "…" + redact(text[-STRING_CHARS_MAX - CUT_CHARS :])[CUT_CHARS:]
    return redact(text[: STRING_CHARS_MAX + CUT_CHARS])[:-CUT_CHARS] + "…"


def text_of(value: object) -> str:
    """`str(value)`, cleaned; says so when there is none."""
    try:
        return clean(str(value))
    except Exception:  # a broken __str__ must not take a log line, or its caller, with it
        return f"<unprintable {type(value).__name__}>"


def plain(value: object, depth: int = 0) -> Any:
    """`value` as something JSON can hold, redacted and bounded."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= 64 else "<big integer>"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"  # what they are is not for a log: a hash is 32 of them
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth < DEPTH_MAX and isinstance(value, dict):
        return {text_of(key): plain(item, depth + 1) for key, item in list(value.items())[:FIELDS_MAX]}
    if depth < DEPTH_MAX and isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in list(value)[:FIELDS_MAX]]
    return text_of(value)


