"""Questions about sessions that another node holds, and answers, as bytes.

A question names an operation and the shards it is about: that of its session, or those that its receiver is asked for. Sessions
and tokens are known by id and by hash; no token is ever in it. Bytes, little-endian without padding:

    question: format u8 · operation u8 · shards u64, bits · length u8, request id · the fields, a JSON object
    answer:   format u8 · status u8 · length u32, the facts, a JSON object · for each piece: length u32, bytes

Always holds: what is decoded has the fields of its operation, or the facts of its answer, of their kinds and no others, within the
bounds below; anything else is a QuestionError. Rules of a session are not checked here: they are the domain's.
"""

import re
import struct
from collections.abc import Callable, Mapping
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, NamedTuple

import orjson

from tokmesh._core.table import SESSION_JSON_BYTES_MAX, Verdict
from tokmesh.errors import ERRORS, ApiError
from tokmesh.ids import ALL_SHARDS, MEMBERS_MAX, parse_session_id, shard_of
from tokmesh.sessions.places import EVICTS_MAX
from tokmesh.sessions.query import SORT_FIELDS, TEXT_FIELDS

FORMAT: Final = 1
QUESTION_BYTES_MAX: Final = 262_144
ANSWER_BYTES_MAX: Final = 917_504  # a server of NATS takes 1 MiB
RAWS_MAX: Final = 1000
KEYS_MAX: Final = 1000

_HEAD: Final = struct.Struct("<BBQB")
_ANSWER: Final = struct.Struct("<BBI")
_LENGTH: Final = struct.Struct("<I")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{0,64}", re.ASCII)
_INT_END: Final = 2**63


class QuestionError(ValueError):
    """Bytes that are no question, or no answer to it, of this format."""


class Operation(IntEnum):
    VERDICTS = 1
    GET = 2
    TOUCH = 3
    PLACES = 4
    CREATE = 5
    RENEW = 6
    UPDATE = 7
    ROTATE = 8
    REVOKE = 9
    REVOKE_USER = 10
    MATCHES = 11
    SHOW = 12


# What changes nothing that an answer that was lost would leave unknown: a touch may be told twice.
READS: Final = frozenset(
    (Operation.VERDICTS, Operation.GET, Operation.TOUCH, Operation.PLACES, Operation.MATCHES, Operation.SHOW)
)


class Status(IntEnum):
    """DONE; REFUSED, with an error; ELSEWHERE: the receiver does not hold all the shards; STALE: it may not answer now. Of the last
    two nothing was done."""

    DONE = 0
    REFUSED = 1
    ELSEWHERE = 2
    STALE = 3


class Question(NamedTuple):
    """request_id: of the request that it is asked for, or "". fields: see _FIELDS."""

    operation: Operation
    shards: int
    request_id: str
    fields: Mapping[str, Any]


class Answer(NamedTuple):
    """facts: see _FACTS; of one that is REFUSED code, details, retry_after_s; ELSEWHERE held, shards (bits). pieces: JSON of
    sessions."""

    status: Status
    facts: Mapping[str, Any]
    pieces: list[bytes]


Kind = Callable[[Any], Any]  # what a JSON value stands for; raises ValueError, TypeError


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not -_INT_END <= value < _INT_END:
        raise TypeError
    return value


def _natural(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError
    return int(value)


def _shards(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= ALL_SHARDS:
        raise TypeError
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _texts(value: Any) -> dict[str, str]:
    if type(value) is not dict or not all(type(each) is str for each in value.values()):
        raise TypeError
    return value


def _hexadecimal(size: int) -> Kind:
    def read(value: Any) -> bytes:
        if len(_text(value)) != 2 * size:
            raise ValueError
        return bytes.fromhex(value)

    return read


def _list_of(kind: Kind, most: int) -> Kind:
    def read(value: Any) -> list[Any]:
        if type(value) is not list or len(value) > most:
            raise TypeError
        return [kind(each) for each in value]

    return read


def _place(value: Any) -> tuple[int, bytes]:
    created_at_ms, session_id = value
    return _natural(created_at_ms), _ID(session_id)


def _session_id(value: Any) -> str:
    if parse_session_id(_text(value)) is None:
        raise ValueError
    return str(value)


def _network(value: Any) -> IPv4Network | IPv6Network:
    return ip_network(_text(value))


def _sort_field(value: Any) -> str:
    if value not in SORT_FIELDS:
        raise ValueError
    return str(value)


def _key(value: Any) -> tuple[int | str, bytes]:
    sorted_by, session_id = value
    return _integer(sorted_by) if type(sorted_by) is int else _text(sorted_by), _ID(session_id)


def _anything(value: Any) -> Any:
    return value


_ID: Final = _hexadecimal(16)
_HASH: Final = _hexadecimal(32)

# A name that ends in "?" may be absent.
_FIELDS: Final[dict[Operation, dict[str, Kind]]] = {
    Operation.VERDICTS: {"hashes": _list_of(_HASH, RAWS_MAX), "touch": _flag},
    Operation.GET: {"session_id": _ID},
    Operation.TOUCH: {"session_id": _ID, "ip_address?": _text, "user_agent?": _text},
    Operation.PLACES: {"user_id": _text},
    Operation.CREATE: {
        "hashed": _HASH, "user_id": _text, "device_id?": _text, "ip_address?": _text, "user_agent?": _text,
        "ttl_seconds?": _integer, "idle_seconds?": _integer, "data?": _texts, "created_by": _text,
    },
    Operation.RENEW: {"session_id": _ID, "ttl_seconds": _integer},
    Operation.UPDATE: {"session_id": _ID, "data": _texts, "if_version?": _integer},
    Operation.ROTATE: {"hashed": _HASH, "new_hash": _HASH, "grace_seconds": _integer},
    Operation.REVOKE: {"session_id": _ID, "sync": _flag},
    Operation.REVOKE_USER: {"user_id": _text, "except_id?": _ID, "sync": _flag},
    Operation.MATCHES: {
        "user_id?": _text, "device_id?": _text, "key_id?": _ID, "ip_network?": _network, "time_range_start_ms?": _integer,
        "time_range_end_ms?": _integer, "active_after_ms?": _integer, "sort_by": _sort_field, "descending": _flag,
        "window": _natural, "after?": _key, "count": _natural,
    },
    Operation.SHOW: {"ids": _list_of(_ID, RAWS_MAX)},
}  # fmt: skip
_REACHED: Final[dict[str, Kind]] = {
    "ended": _natural, "applied?": _list_of(_text, MEMBERS_MAX), "fenced?": _list_of(_text, MEMBERS_MAX), "took_ms?": _natural,
}  # fmt: skip
_FACTS: Final[dict[Operation, dict[str, Kind]]] = {
    Operation.VERDICTS: {"verdicts": _list_of(_natural, RAWS_MAX)},
    Operation.GET: {},
    Operation.TOUCH: {},
    Operation.PLACES: {"total": _natural, "oldest": _list_of(_place, EVICTS_MAX)},
    Operation.CREATE: {"session_id": _session_id, "expires_at": _integer},
    Operation.RENEW: {"expires_at": _integer},
    Operation.UPDATE: {"version": _integer},
    Operation.ROTATE: {"expires_at": _integer, "old_valid_until": _integer},
    Operation.REVOKE: _REACHED,
    Operation.REVOKE_USER: _REACHED,
    Operation.MATCHES: {"keys": _list_of(_key, KEYS_MAX), "total": _natural, "next_window": _integer},
    Operation.SHOW: {},
}
_BY_STATUS: Final[dict[Status, dict[str, Kind]]] = {
    Status.REFUSED: {"code": _text, "details?": _anything, "retry_after_s?": _natural},
    Status.ELSEWHERE: {"held": _shards},
    Status.STALE: {},
}


def encode_question(question: Question) -> bytes:
    """The question's bytes; fields that are None are left out, bytes are told as hexadecimal digits."""
    request_id = question.request_id.encode("ascii")
    head = _HEAD.pack(FORMAT, question.operation, question.shards, len(request_id))
    return b"".join((head, request_id, _encode(question.fields)))


def decode_question(data: bytes) -> Question:
    """The question that `data` is, to the last byte. Raises QuestionError."""
    try:
        if len(data) > QUESTION_BYTES_MAX:
            raise QuestionError("a question that is too large")
        kind, number, shards, length = _HEAD.unpack_from(data)
        request_id = data[_HEAD.size : _HEAD.size + length].decode("ascii")
        if kind != FORMAT or not 0 < shards <= ALL_SHARDS or not _REQUEST_ID.fullmatch(request_id):
            raise QuestionError("a question of another format")
        operation = Operation(number)
        fields = _decode(data[_HEAD.size + length :], _FIELDS[operation])
        if _shards_of(fields) & ~shards:
            raise QuestionError("a question about another shard")
        if "after" in fields and isinstance(fields["after"][0], str) != (fields["sort_by"] in TEXT_FIELDS):
            raise QuestionError("a key of another order")
        return Question(operation, shards, request_id, fields)
    except (struct.error, UnicodeDecodeError, ValueError, TypeError) as error:
        raise QuestionError("no question") from error


def encode_answer(answer: Answer) -> bytes:
    """The answer's bytes."""
    facts = _encode(answer.facts)
    parts = [_ANSWER.pack(FORMAT, answer.status, len(facts)), facts]
    for piece in answer.pieces:
        parts += (_LENGTH.pack(len(piece)), piece)
    return b"".join(parts)


def decode_answer(data: bytes, operation: Operation) -> Answer:
    """The answer to a question for that operation that `data` is, to the last byte. Raises QuestionError."""
    try:
        kind, number, length = _ANSWER.unpack_from(data)
        position = _ANSWER.size + length
        if kind != FORMAT or position > len(data):
            raise QuestionError("an answer of another format")
        status = Status(number)
        kinds = _FACTS[operation] if status == Status.DONE else _BY_STATUS[status]
        facts = _decode(data[_ANSWER.size : position], kinds)
        pieces = []
        while position < len(data):
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size + length
            if position > len(data):
                raise QuestionError("an answer that ends early")
            pieces.append(data[position - length : position])
        if not _is_whole(operation, status, facts, pieces):
            raise QuestionError("an answer with something missing, or too much")
    except (struct.error, ValueError, TypeError) as error:
        raise QuestionError("no answer") from error
    return Answer(status, facts, pieces)


def _is_whole(operation: Operation, status: Status, facts: Mapping[str, Any], pieces: list[bytes]) -> bool:
    """Whether the parts of an answer fit together."""
    sessions = 0
    if status == Status.DONE and operation == Operation.VERDICTS:
        verdicts = facts["verdicts"]
        if not verdicts or max(verdicts) > Verdict.VERDICT_BUSY:
            return False
        sessions = verdicts.count(Verdict.VERDICT_VALID)
    elif status == Status.DONE and operation in (Operation.GET, Operation.TOUCH):
        sessions = 1
    elif status == Status.DONE and operation == Operation.SHOW:
        sessions = max(1, len(pieces))
    of_reach = len(facts.keys() & {"applied", "fenced", "took_ms"})
    return len(pieces) == sessions and all(len(each) <= SESSION_JSON_BYTES_MAX for each in pieces) and of_reach in (0, 3)


def refusal(error: ApiError) -> Answer:
    """The answer that the operation came to an error."""
    facts = {"code": error.code, "details": error.details, "retry_after_s": error.retry_after_s}
    return Answer(Status.REFUSED, facts, [])


def error_of(answer: Answer) -> ApiError:
    """The error that an answer tells of. Raises QuestionError."""
    code, details = answer.facts["code"], answer.facts.get("details")
    if code not in ERRORS or not isinstance(details, dict | None):
        raise QuestionError("no error")
    return ApiError(code, details, retry_after_s=answer.facts.get("retry_after_s"))


def _shards_of(fields: Mapping[str, Any]) -> int:
    """Of the sessions and tokens that are named; one that is to be spared may be anywhere."""
    shards = 0
    for each in (*(fields[name] for name in ("session_id", "hashed", "new_hash") if name in fields), *fields.get("hashes", ()),
                 *fields.get("ids", ())):  # fmt: skip
        shards |= 1 << shard_of(each)
    return shards


def _encode(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps({name: value for name, value in fields.items() if value is not None}, default=_told)


def _told(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _decode(data: bytes, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    given: Any = orjson.loads(data)
    if type(given) is not dict:
        raise QuestionError("no fields")
    fields = {}
    for name, kind in kinds.items():
        plain = name.removesuffix("?")
        if plain in given:
            fields[plain] = kind(given.pop(plain))
        elif plain == name:
            raise QuestionError("a field is missing")
    if given:
        raise QuestionError("a field too many")
    return fields
