"""Questions between nodes as bytes: each comes back as it was made, and nothing else is taken for one."""

import os
import random
from typing import Any

import orjson
import pytest

from tokmesh.cluster import asking, question
from tokmesh.cluster.question import (
    Answer,
    Operation,
    Question,
    QuestionError,
    Status,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
    error_of,
    refusal,
)
from tokmesh.errors import ApiError
from tokmesh.ids import ALL_SHARDS, format_session_id
from tokmesh.telemetry.cluster_metrics import ANSWER_OUTCOMES, QUESTION_OUTCOMES

ID, HASH = bytes(15) + b"\x01", bytes(31) + b"\x41"  # both of shard 1
FIELDS: dict[Operation, dict[str, Any]] = {
    Operation.VERDICTS: {"hashes": [HASH, bytes(32)], "touch": True},
    Operation.GET: {"session_id": ID},
    Operation.TOUCH: {"session_id": ID, "ip_address": "::1", "user_agent": "ü"},
    Operation.PLACES: {"user_id": "ann"},
    Operation.CREATE: {
        "hashed": HASH, "user_id": "ann", "device_id": "", "ip_address": "", "user_agent": "", "ttl_seconds": 5, "idle_seconds": 1,
        "data": {"k": "v"}, "created_by": "tmak-x",
    },
    Operation.RENEW: {"session_id": ID, "ttl_seconds": -(2**63)},
    Operation.UPDATE: {"session_id": ID, "data": {}, "if_version": 2**63 - 1},
    Operation.ROTATE: {"hashed": HASH, "new_hash": HASH, "grace_seconds": 60},
    Operation.REVOKE: {"session_id": ID, "sync": False},
    Operation.REVOKE_USER: {"user_id": "ann", "except_id": bytes(15) + b"\x02", "sync": True},
    Operation.MATCHES: {
        "user_id": "ann", "device_id": "d", "key_id": ID, "time_range_start_ms": 1, "time_range_end_ms": 2, "active_after_ms": 3,
        "sort_by": "user_id", "descending": False, "window": 7, "after": ("ann", ID), "count": 3,
    },
    Operation.SHOW: {"ids": [ID]},
}  # fmt: skip
FACTS: dict[Operation, tuple[dict[str, Any], list[bytes]]] = {
    Operation.VERDICTS: ({"verdicts": [0, 1, 0]}, [b"{}", b"{}"]),
    Operation.GET: ({}, [b"{}"]),
    Operation.TOUCH: ({}, [b"{}"]),
    Operation.PLACES: ({"total": 3, "oldest": [(5, ID)]}, []),
    Operation.CREATE: ({"session_id": format_session_id(ID), "expires_at": 5}, []),
    Operation.RENEW: ({"expires_at": 5}, []),
    Operation.UPDATE: ({"version": 5}, []),
    Operation.ROTATE: ({"expires_at": 5, "old_valid_until": 6}, []),
    Operation.REVOKE: ({"ended": 1, "applied": ["tmnd-a"], "fenced": [], "took_ms": 3}, []),
    Operation.REVOKE_USER: ({"ended": 1}, []),
    Operation.MATCHES: ({"keys": [(5, ID), ("ann", ID)], "total": 2, "next_window": -1}, []),
    Operation.SHOW: ({}, [b"{}", b""]),
}


def of(operation: Operation) -> Question:
    return Question(operation, 3, "req-1", FIELDS[operation])


def test_every_operation_has_an_example_here() -> None:
    assert set(FIELDS) == set(FACTS) == set(Operation)


@pytest.mark.parametrize("operation", Operation)
def test_a_question_and_its_answer_come_back_as_they_were_made(operation: Operation) -> None:
    assert decode_question(encode_question(of(operation))) == of(operation)
    answer = Answer(Status.DONE, *FACTS[operation])
    assert decode_answer(encode_answer(answer), operation) == answer
    for answer in (Answer(Status.ELSEWHERE, {"held": ALL_SHARDS ^ 2}, []), Answer(Status.STALE, {}, [])):
        assert decode_answer(encode_answer(answer), operation) == answer


@pytest.mark.parametrize(
    "error",
    [
        ApiError("TM-SESS-4091", {"version": 7}),
        ApiError("TM-CLST-5030", {"reason": "no_quorum", "outcome": "unknown"}, retry_after_s=1),
        ApiError("TM-SESS-4040"),
    ],
)
def test_an_error_comes_back_as_it_was_raised(error: ApiError) -> None:
    told = error_of(decode_answer(encode_answer(refusal(error)), Operation.GET))
    assert (told.code, told.details, told.retry_after_s) == (error.code, error.details, error.retry_after_s)


@pytest.mark.parametrize("operation", Operation)
def test_whatever_is_changed_in_a_question_it_is_another_one_or_none(operation: Operation) -> None:
    whole = encode_question(of(operation))
    source = random.Random(operation)
    for _ in range(2000):
        changed = bytearray(whole)
        changed[source.randrange(len(changed))] = source.randrange(256)
        for data in (bytes(changed), bytes(changed[: source.randrange(len(changed))])):
            try:
                decoded = decode_question(data)
            except QuestionError:
                continue
            assert decode_question(encode_question(decoded)) == decoded
    for data in (os.urandom(50), whole + b" x", b""):
        with pytest.raises(QuestionError):
            decode_question(data)


@pytest.mark.parametrize("operation", Operation)
def test_whatever_is_changed_in_an_answer_it_is_another_one_or_none(operation: Operation) -> None:
    whole = encode_answer(Answer(Status.DONE, *FACTS[operation]))
    source = random.Random(operation)
    for _ in range(2000):
        changed = bytearray(whole)
        changed[source.randrange(len(changed))] = source.randrange(256)
        for data in (bytes(changed), bytes(changed[: source.randrange(len(changed))])):
            try:
                decoded = decode_answer(data, operation)
            except QuestionError:
                continue
            assert decode_answer(encode_answer(decoded), operation) == decoded


BAD_FIELDS: list[tuple[Operation, dict[str, Any]]] = [
    (Operation.GET, {}),
    (Operation.GET, {"session_id": ID.hex(), "more": 1}),
    (Operation.GET, {"session_id": ID.hex()[:-1]}),
    (Operation.GET, {"session_id": "x" * 32}),
    (Operation.GET, {"session_id": (bytes(15) + b"\x02").hex()}),  # of another shard
    (Operation.VERDICTS, {"hashes": [HASH.hex()] * 1001, "touch": True}),
    (Operation.VERDICTS, {"hashes": [HASH.hex()], "touch": 1}),
    (Operation.VERDICTS, {"hashes": [(bytes(31) + b"\x02").hex()], "touch": True}),
    (Operation.RENEW, {"session_id": ID.hex(), "ttl_seconds": True}),
    (Operation.RENEW, {"session_id": ID.hex(), "ttl_seconds": 2**63}),
    (Operation.UPDATE, {"session_id": ID.hex(), "data": {"k": 1}}),
    (Operation.ROTATE, {"hashed": HASH.hex(), "new_hash": (bytes(31) + b"\x02").hex(), "grace_seconds": 1}),
    (Operation.MATCHES, {"sort_by": "id", "descending": True, "window": 0, "count": 1}),
    (Operation.MATCHES, {"sort_by": "created_at", "descending": True, "window": 0, "count": 1, "after": ["x", ID.hex()]}),
    (Operation.MATCHES, {"sort_by": "created_at", "descending": True, "window": -1, "count": 1}),
    (Operation.MATCHES, {"sort_by": "created_at", "descending": True, "window": 0, "count": 1, "ip_network": "10.0.0.0/99"}),
]


@pytest.mark.parametrize(("operation", "fields"), BAD_FIELDS)
def test_a_question_with_a_bad_field_is_none(operation: Operation, fields: dict[str, Any]) -> None:
    head = encode_question(Question(operation, 2, "", {}))[:-2]
    with pytest.raises(QuestionError):
        decode_question(head + orjson.dumps(fields))


def test_a_question_has_bounds() -> None:
    good = encode_question(of(Operation.GET))
    for bad in (
        encode_question(of(Operation.GET)._replace(shards=0)),
        encode_question(of(Operation.GET)._replace(request_id="a b")),
        encode_question(of(Operation.GET)._replace(request_id="a" * 65)),
        b"\x02" + good[1:], good[:1] + b"\xff" + good[2:],
        encode_question(Question(Operation.PLACES, ALL_SHARDS, "", {"user_id": "x" * question.QUESTION_BYTES_MAX})),
    ):  # fmt: skip
        with pytest.raises(QuestionError):
            decode_question(bad)


BAD_ANSWERS = [
    (Operation.GET, Answer(Status.DONE, {}, [])),
    (Operation.GET, Answer(Status.DONE, {}, [b"{}", b"{}"])),
    (Operation.GET, Answer(Status.DONE, {}, [b"x" * 20_000])),
    (Operation.VERDICTS, Answer(Status.DONE, {"verdicts": []}, [])),
    (Operation.VERDICTS, Answer(Status.DONE, {"verdicts": [5]}, [])),
    (Operation.VERDICTS, Answer(Status.DONE, {"verdicts": [0]}, [])),
    (Operation.VERDICTS, Answer(Status.DONE, {"verdicts": [1]}, [b"{}"])),
    (Operation.CREATE, Answer(Status.DONE, {"session_id": "tmss-x", "expires_at": 1}, [])),
    (Operation.REVOKE, Answer(Status.DONE, {"ended": 1, "applied": []}, [])),
    (Operation.RENEW, Answer(Status.DONE, {"expires_at": 1}, [b"{}"])),
    (Operation.SHOW, Answer(Status.DONE, {}, [])),
    (Operation.GET, Answer(Status.STALE, {"x": 1}, [])),
    (Operation.GET, Answer(Status.REFUSED, {"details": {}}, [])),
    (Operation.GET, Answer(Status.REFUSED, {"code": "TM-XXXX"[:4]}, [])),
    (Operation.GET, Answer(Status.REFUSED, {"code": "TM-SESS-4040", "details": [1]}, [])),
]


@pytest.mark.parametrize(("operation", "answer"), BAD_ANSWERS)
def test_an_answer_that_does_not_fit_together_is_none(operation: Operation, answer: Answer) -> None:
    with pytest.raises(QuestionError):
        error_of(decode_answer(encode_answer(answer), operation))


def test_outcomes_are_those_of_the_metrics() -> None:
    assert asking.OUTCOMES == QUESTION_OUTCOMES
    assert {each.name.lower() for each in Status} == {"done", "refused", "elsewhere", "stale"} and ANSWER_OUTCOMES[0] == "answered"
