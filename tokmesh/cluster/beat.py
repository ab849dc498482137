"""A beat: what a node tells the others about itself, several times a second, and its bytes.

A beat is either whole, with an echo of every member that its sender has heard, or a notice: sent between two whole ones, at once
when `applied` advances, and without echoes. Both are numbered together, from 1 in each incarnation.

Bytes, little-endian without padding:

    format u8 · flags u8 (1 counted, 2 notice, 4 leaving) · incarnation u64 · number u64 · applied u64 · sessions u64 · pending u32
    · held u64 · keys u64 · max_staleness_ms u32 · length u8, node id · length u8, version · count u8, and for each echo:
        incarnation u64 · number u64 · age_ns u64 · length u8, node id

Always holds: what `decode_beat` returns lies within the bounds below, and `encode_beat` turns it into the same bytes again;
anything else is a BeatError. A beat of a newer format is one too: nodes of two formats do not take each other for current.
"""

import struct
from typing import Final, NamedTuple

from tokmesh.ids import ALL_SHARDS, MEMBERS_MAX, is_node_id

FORMAT: Final = 3
VERSION_BYTES_MAX: Final = 64

_HEAD: Final = struct.Struct("<BBQQQQIQQI")
_ECHO: Final = struct.Struct("<QQQ")
_COUNTED: Final = 1
_NOTICE: Final = 2
_LEAVING: Final = 4
_U64_END: Final = 2**64
_U32_END: Final = 2**32


class BeatError(ValueError):
    """Bytes that are no beat of this format, or a beat with a field outside its bounds."""


class Echo(NamedTuple):
    """The latest beat that the sender has heard of another node, and how long before its own sending that was."""

    node_id: str
    incarnation: int
    number: int
    age_ns: int


class Beat(NamedTuple):
    """What a node says of itself; integers are u64 unless said otherwise."""

    node_id: str
    incarnation: int  # of the sender's start; larger is newer
    number: int  # from 1 in each incarnation
    applied: int  # the stream's sequence up to which the sender has applied everything
    counted: bool  # since its start a message that it published to the stream came back to it, and is within `applied`
    notice: bool  # without echoes, so that nothing follows from a missing one
    echoes: tuple[Echo, ...]  # each node once, never the sender; at most MEMBERS_MAX, as who is no member beats too
    sessions: int
    pending: int  # u32: requests that wait for the log
    version: str  # of the software; at most VERSION_BYTES_MAX bytes of printable ASCII
    held: int = ALL_SHARDS  # shards (bits) about whose sessions the sender can be asked
    keys: int = 0  # live sessions of the shards that the sender is primary for
    leaving: bool = False  # the last of this incarnation; for people: no proof uses it
    max_staleness_ms: int = 0  # u32: for how long the sender answers by one proof that it is current


def encode_beat(beat: Beat) -> bytes:
    """The beat's bytes. Raises BeatError when a field is outside its bounds."""
    _check(beat)
    flags = (_COUNTED if beat.counted else 0) | (_NOTICE if beat.notice else 0) | (_LEAVING if beat.leaving else 0)
    numbers = (beat.incarnation, beat.number, beat.applied, beat.sessions, beat.pending, beat.held, beat.keys)
    parts = [_HEAD.pack(FORMAT, flags, *numbers, beat.max_staleness_ms)]
    parts += (_text(beat.node_id), _text(beat.version), bytes((len(beat.echoes),)))
    for echo in beat.echoes:
        parts += (_ECHO.pack(echo.incarnation, echo.number, echo.age_ns), _text(echo.node_id))
    return b"".join(parts)


def decode_beat(data: bytes) -> Beat:
    """The beat that `data` is, to the last byte. Raises BeatError for anything else."""
    try:
        beat = _read(data)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise BeatError("a beat that ends early or holds no text where text belongs") from None
    _check(beat)
    return beat


def _read(data: bytes) -> Beat:
    kind, flags, incarnation, number, applied, sessions, pending, held, keys, max_staleness_ms = _HEAD.unpack_from(data)
    if kind != FORMAT or flags & ~(_COUNTED | _NOTICE | _LEAVING):
        raise BeatError("a beat of another format")
    node_id, position = _text_at(data, _HEAD.size)
    version, position = _text_at(data, position)
    echo_count = data[position]
    position += 1
    echoes = []
    for _ in range(echo_count):
        echo_incarnation, echo_number, age_ns = _ECHO.unpack_from(data, position)
        echo_node_id, position = _text_at(data, position + _ECHO.size)
        echoes.append(Echo(echo_node_id, echo_incarnation, echo_number, age_ns))
    if position != len(data):
        raise BeatError("bytes behind a beat")
    counted, notice, leaving = bool(flags & _COUNTED), bool(flags & _NOTICE), bool(flags & _LEAVING)
    return Beat(
        node_id, incarnation, number, applied, counted, notice, tuple(echoes), sessions, pending, version, held, keys, leaving,
        max_staleness_ms,
    )  # fmt: skip


def _check(beat: Beat) -> None:
    echoed = {echo.node_id for echo in beat.echoes}
    integers = [beat.incarnation, beat.number, beat.applied, beat.sessions, beat.held, beat.keys]
    for echo in beat.echoes:
        integers += (echo.incarnation, echo.number, echo.age_ns)
    within = (
        all(0 <= value < _U64_END for value in integers)
        and 0 <= beat.pending < _U32_END
        and 0 <= beat.max_staleness_ms < _U32_END
        and all(number >= 1 for number in (beat.number, *(echo.number for echo in beat.echoes)))
        and all(is_node_id(node_id) for node_id in (beat.node_id, *echoed))
        and len(beat.version) <= VERSION_BYTES_MAX
        and (beat.version == "" or (beat.version.isascii() and beat.version.isprintable()))
        and len(echoed) == len(beat.echoes) <= MEMBERS_MAX
        and beat.node_id not in echoed
        and not (beat.notice and beat.echoes)
    )
    if not within:
        raise BeatError("a field of a beat is outside its bounds")


def _text(text: str) -> bytes:
    raw = text.encode("ascii")
    return bytes((len(raw),)) + raw


def _text_at(data: bytes, position: int) -> tuple[str, int]:
    start = position + 1
    end = start + data[position]
    if end > len(data):
        raise IndexError
    return data[start:end].decode("ascii"), end
