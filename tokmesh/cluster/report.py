"""A report: what a node found its table to be at a place of the stream, as it tells the others, and its bytes.

Bytes, little-endian without padding:

    format u8 · flags u8 (1 apart) · created_ns u64 · position u64 · held u64 · length u8, node id · for each of the 64 shards: its
    sum u64 · sum of the API keys u64

Always holds: what `decode_report` returns lies within the bounds below, and `encode_report` turns it into the same bytes again;
anything else is a ReportError. Another way of summing up (_core/survey.pyx, key_survey.py) is another format: the two cannot be
compared, and who reports in it is as one who does not report. Format 1 had no sum of the keys, and did not tell what is held.
"""

import struct
from typing import Final, NamedTuple

from tokmesh.ids import SHARDS, is_node_id

FORMAT: Final = 2
KEYS: Final = SHARDS  # which of the sums is that of the keys
PARTS: Final = SHARDS + 1

_HEAD: Final = struct.Struct("<BBQQQB")
_SUMS: Final = struct.Struct(f"<{PARTS}Q")
_APART: Final = 1


class ReportError(ValueError):
    """Bytes that are no report of this format."""


class Report(NamedTuple):
    """created_ns: when the stream was made, Unix; position: the place in it; apart: its sender answers nothing, as its table is
    held to be wrong; held: shards (bits) that it has; sums: PARTS of them, of each shard and of the keys; of a shard that it has
    not, anything. Numbers are u64."""

    node_id: str
    created_ns: int
    position: int
    apart: bool
    held: int
    sums: tuple[int, ...]

    def has(self, part: int) -> bool:
        """Whether the node has what that sum is of."""
        return part == KEYS or bool(self.held >> part & 1)


def encode_report(report: Report) -> bytes:
    """The report's bytes."""
    name = report.node_id.encode("ascii")
    head = _HEAD.pack(FORMAT, _APART if report.apart else 0, report.created_ns, report.position, report.held, len(name))
    return b"".join((head, name, _SUMS.pack(*report.sums)))


def decode_report(data: bytes) -> Report:
    """The report that `data` is, to the last byte. Raises ReportError for anything else."""
    try:
        kind, flags, created_ns, position, held, length = _HEAD.unpack_from(data)
        node_id = data[_HEAD.size : _HEAD.size + length].decode("ascii")
        sums = _SUMS.unpack(data[_HEAD.size + length :])
    except (struct.error, UnicodeDecodeError):
        raise ReportError("not the size of a report") from None
    if kind != FORMAT or flags & ~_APART or not is_node_id(node_id):
        raise ReportError("a report of another format")
    return Report(node_id, created_ns, position, bool(flags), held, sums)
