"""tracestate: what other tracing systems add to a trace (W3C Trace Context Level 1 §3.3). Kept whole or not at all, but for its
length: a list with one member that breaks a rule tells nothing that can be trusted.

It goes into the spans of the request as it came, in canonical form. Beyond CHARS_MAX, members longer than MEMBER_CHARS_LONG go
first, then members from the end (§3.3.1.5), so that those who wrote last are kept. A list that holds what looks like a secret
of ours is dropped whole: a client may put anything there, and spans leave the house.
"""

import re
from typing import Final

from tokmesh.telemetry.logs.redaction import redact

MEMBERS_MAX: Final = 32
CHARS_MAX: Final = 512
MEMBER_CHARS_LONG: Final = 128
FIELD_CHARS_MAX: Final = 8192  # more is not looked at; heads are bounded, this bounds the work

_MEMBER: Final = re.compile(
    r"(?P<key>[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=(?P<value>[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)


def parse_trace_state(field: str | None) -> str:
    """The canonical text of a tracestate field, its repetitions joined with commas; "" when there is nothing to keep."""
    if not field or len(field) > FIELD_CHARS_MAX:
        return ""
    members = [stripped for part in field.split(",") if (stripped := part.strip(" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match["key"] for match in found if match is not None}
    if len(keys) != len(members) or len(members) > MEMBERS_MAX or redact(field) != field:
        return ""
    size = sum(map(len, members)) + len(members) - 1
    if size > CHARS_MAX:
        members = _shortened(members, size)
    return ",".join(members)


def _shortened(members: list[str], size: int) -> list[str]:
    kept = []
    for member in members:
        if size > CHARS_MAX and len(member) > MEMBER_CHARS_LONG:
            size -= len(member) + 1
        else:
            kept.append(member)
    while size > CHARS_MAX:
        size -= len(kept.pop()) + 1
    return kept
